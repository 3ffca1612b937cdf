#!/bin/sh
# Makes .venv with what the program (run) or its tests (test) need. As root also installs what Debian has to give.
# Says each step before it begins, on standard error: standard output is the program's.
# Usage: scripts/bootstrap.sh run|test
set -eu
cd "$(dirname "$0")/.."
what=${1:?run or test}
python=${PYTHON:-python3}

say() { echo "$*" >&2; }
has_venv() { "$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 10))' >/dev/null 2>&1; }

# What the system must have, as commands and the Debian package each comes in.
wanted="conntrack:conntrack"
[ "$what" = test ] && wanted="$wanted ip:iproute2 nft:nftables iptables:iptables tmux:tmux git:git \
debootstrap:debootstrap sshd:openssh-server ssh:openssh-client zsh:zsh fish:fish groff:groff-base \
sqlite3:sqlite3 systemd-analyze:systemd"
missing=""
for pair in $wanted; do
    PATH="$PATH:/usr/sbin:/sbin" command -v "${pair%%:*}" >/dev/null 2>&1 || missing="$missing ${pair##*:}"
done
has_venv || missing="$missing python3 python3-venv"

if [ -n "$missing" ]; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
        say "Installing Debian packages with apt-get, in about a minute:$missing"
        apt-get update -qq >/dev/null
        # shellcheck disable=SC2086  # a list of packages
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
    else
        say "Not installed:$missing. As root: apt install$missing"
    fi
fi
has_venv || {
    say "Python 3.10 or later with venv is required. As root: apt install python3-venv. To use another Python: make $what PYTHON=python3.12"
    exit 1
}

requirements=requirements.txt
packages="the program's packages"
[ "$what" = test ] && requirements="requirements-dev.txt" packages="the packages of the program and its tests"
stamp=.venv/.$what
# shellcheck disable=SC3013  # dash and busybox know -nt
if [ ! -f "$stamp" ] || [ "$requirements" -nt "$stamp" ] || [ requirements.txt -nt "$stamp" ]; then
    [ -x .venv/bin/python ] || {
        say "Creating a virtual environment in $PWD/.venv, in about 10 seconds"
        "$python" -m venv .venv
    }
    say "Installing $packages into .venv ($requirements), in about $([ "$what" = test ] && echo "a minute" || echo "10 seconds")"
    .venv/bin/python -m pip install --quiet --disable-pip-version-check -r "$requirements" || {
        say "The packages could not be installed; see pip's message above. Without a network, use the one file (docs/install.md)."
        exit 1
    }
    touch "$stamp"
    say "Setup is complete. The next run skips it; make clean removes it."
fi
