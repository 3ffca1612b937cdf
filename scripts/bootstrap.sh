#!/bin/sh
# Makes .venv with what the program (run) or its tests (test) need. As root also installs what Debian has to give.
# Usage: scripts/bootstrap.sh run|test
set -eu
cd "$(dirname "$0")/.."
what=${1:?run or test}
python=${PYTHON:-python3}

# What the system must have, as commands and the Debian package each comes in.
wanted="conntrack:conntrack"
[ "$what" = test ] && wanted="$wanted ip:iproute2 nft:nftables iptables:iptables tmux:tmux git:git \
debootstrap:debootstrap sshd:openssh-server ssh:openssh-client zsh:zsh fish:fish groff:groff-base \
sqlite3:sqlite3 systemd-analyze:systemd"
missing=""
for pair in $wanted; do
    PATH="$PATH:/usr/sbin:/sbin" command -v "${pair%%:*}" >/dev/null 2>&1 || missing="$missing ${pair##*:}"
done
"$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 10))' >/dev/null 2>&1 || missing="$missing python3 python3-venv"

if [ -n "$missing" ]; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
        echo "installing:$missing"
        apt-get update -qq >/dev/null
        # shellcheck disable=SC2086  # a list of packages
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
    else
        echo "not installed here:$missing (as root: apt install$missing)"
    fi
fi
"$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 10))' 2>/dev/null || {
    echo "Python 3.10 or later with venv is needed; try: apt install python3-venv, or make PYTHON=python3.12" >&2
    exit 1
}

requirements=requirements.txt
[ "$what" = test ] && requirements="requirements-dev.txt"
stamp=.venv/.$what
# shellcheck disable=SC3013  # dash and busybox know -nt
if [ ! -f "$stamp" ] || [ "$requirements" -nt "$stamp" ] || [ requirements.txt -nt "$stamp" ]; then
    [ -x .venv/bin/python ] || "$python" -m venv .venv
    .venv/bin/python -m pip install --quiet --disable-pip-version-check -r "$requirements"
    touch "$stamp"
fi
