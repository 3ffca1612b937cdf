#!/bin/sh
# Starts the monitor with the given options; where it can't watch this machine, it says why and plays the recording.
set -eu
cd "$(dirname "$0")/.."
PATH="$PATH:/usr/sbin:/sbin"
export PATH
why=""
case " $* " in
*" --replay"* | *" --via"* | *" --conntrack"* | *" --help "* | *" -h "* | *" --version "*) ;;
*)
    if ! command -v conntrack >/dev/null 2>&1; then
        why="the program conntrack is not installed (as root: apt install conntrack)"
    elif ! conntrack -L -p udp --sport 1 >/dev/null 2>&1; then
        why="reading this machine's connection table needs root (sudo make run)"
    fi
    ;;
esac
if [ -n "$why" ]; then
    echo "Not live: $why. Playing the bundled recording." >&2
    set -- --demo "$@"
fi
exec .venv/bin/python conntrack_monitor.py "$@"
