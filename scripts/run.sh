#!/bin/sh
# Starts the monitor with the given options; where it can't watch this machine, it says why and plays the demo.
set -eu
cd "$(dirname "$0")/.."
PATH="$PATH:/usr/sbin:/sbin"
export PATH
why=""
case " $* " in
*" --replay"* | *" --via"* | *" --conntrack"* | *" --who"* | *" --update-geoip "* | *" --print-"*) ;;
*" --help "* | *" -h "* | *" --version "*) ;;
*)
    if ! command -v conntrack >/dev/null 2>&1; then
        why="conntrack is not installed (as root: apt install conntrack)"
    elif ! conntrack -L -p udp --sport 1 >/dev/null 2>&1; then
        why="reading its connection table needs root (sudo make run)"
    fi
    ;;
esac
if [ -n "$why" ]; then
    echo "This machine cannot be watched: $why." >&2
    echo "Playing the bundled demo instead: fixtures/demo.rec, three minutes of a small router's traffic." >&2
    set -- --replay fixtures/demo.rec "$@"
fi
exec .venv/bin/python conntrack_monitor.py "$@"
