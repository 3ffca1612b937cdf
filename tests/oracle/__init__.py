"""The oracle: random traffic through a real router, and the program's table held against the kernel's."""
