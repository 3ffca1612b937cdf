"""What the tests stand on: a kernel, a terminal, a Docker engine, a web server, tables made from text."""
