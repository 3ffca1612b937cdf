"""What went wrong with a command, in words: pure functions from its stderr and exit status to a Problem.

Source: conntrack-tools 1.4.4 to 1.4.9 (src/conntrack.c) and captures of every message, ``fixtures/captures/failures``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from text import clean

# Exit codes of the program.
WELL, FAILED, USAGE, NOT_PERMITTED, NOT_FOUND = 0, 1, 2, 3, 4

TRACKING_OFF = "tracking is off: no firewall rule here uses it"
TRACKING_CURE = "iptables -I INPUT -m conntrack --ctstate NEW"
ACCOUNTING_OFF = "accounting is off: no bytes, packets or rates"
ACCOUNTING_CURE = "sysctl -w net.netfilter.nf_conntrack_acct=1"
SUDO = "sudo, or --via sudo"
EVENTS_CURE = "sysctl -w net.netfilter.nf_conntrack_events=2"


@dataclass(frozen=True)
class Problem:
    """What happened and why, the command that helps, and the exit code it means if it happens at the start."""

    what: str
    cure: str = ""
    code: int = FAILED

    def __str__(self) -> str:
        return f"{self.what}; try: {self.cure}" if self.cure else self.what


def not_started(argv: Sequence[str], error: OSError) -> Problem:
    """A program that could not be started at all."""
    name = clean(argv[0])
    if isinstance(error, FileNotFoundError):
        if name.rpartition("/")[2] == "conntrack":
            return Problem(f"{name} is not installed here", "apt install conntrack", NOT_FOUND)
        return Problem(f"{name}: no such program", "a look at --via and --conntrack", NOT_FOUND)
    if isinstance(error, PermissionError):
        return Problem(
            f"{name} may not be run: permission denied", f"ls -l {name}" if "/" in name else "", NOT_PERMITTED
        )
    return Problem(f"{name} could not be started: {error.strerror}")


def explain(argv: Sequence[str], stderr: str, status: int) -> Problem:
    """Why a command ended. ``status`` as subprocess gives it: an exit status, or minus a signal's number."""
    command = clean(" ".join(argv[-4:] if len(argv) > 4 else argv), 60)
    for pattern, make in _KNOWN:
        if match := re.search(pattern, stderr[-2048:], re.IGNORECASE):
            return make(match)
    said = clean(_last_line(stderr))
    if status < 0:
        return Problem(f"killed by signal {-status}" + (f": {said}" if said else "") + f" ({command})")
    if status == 127:
        return Problem(f"{command}: not found" + (f" ({said})" if said else ""), "apt install conntrack", NOT_FOUND)
    if said:
        return Problem(f"{said} ({command})")
    return Problem(f"{command} ended with status {status} and said nothing")


def _last_line(stderr: str) -> str:
    """The line that says most: the last that is not conntrack's summary or its pointer to the help."""
    lines = [re.sub(r"^conntrack v[\d.]+ \(conntrack-tools\): ", "", line) for line in stderr.splitlines()]
    said = [line for line in lines if line.strip() and not re.match(r"Try `conntrack|\d+ flow (entries|events)", line)]
    return said[-1] if said else ""


def is_loss(stderr: str) -> bool:
    """Does stderr tell of events that the kernel dropped (ENOBUFS)?"""
    return "ENOBUFS" in stderr or "No buffer space" in stderr


_KNOWN: tuple[tuple[str, Callable[[re.Match[str]], Problem]], ...] = (
    (
        r"must be root or get CAP_NET_ADMIN|mnl_socket_bind: Operation not permitted",
        lambda _m: Problem(
            "not permitted: reading the connection table needs root or CAP_NET_ADMIN",
            SUDO,
            NOT_PERMITTED,
        ),
    ),
    (
        r"sudo: .*(password is required|terminal is required|no tty present|not allowed)",
        lambda _m: Problem(
            "sudo wants a password and can't ask for it here", "sudo -v first, or run all as root", NOT_PERMITTED
        ),
    ),
    (
        r"Permission denied \(([a-z,-]+)\)|Host key verification failed",
        lambda _m: Problem(
            "ssh did not let us in: it can't ask for a password here", "ssh-copy-id, then ssh-add", NOT_PERMITTED
        ),
    ),
    (
        r"Protocol not supported|NFNETLINK|nfnetlink",
        lambda _m: Problem(
            "this kernel has no connection tracking (nf_conntrack_netlink)", "modprobe nf_conntrack_netlink"
        ),
    ),
    (
        r"setting the network namespace[^\n]*Operation not permitted|Operation not permitted[^\n]*namespace",
        lambda _m: Problem("not permitted: entering a network namespace needs root", "sudo", NOT_PERMITTED),
    ),
    (
        r'Cannot open network namespace "([^"]*)"',
        lambda m: Problem(f"there is no network namespace '{clean(m.group(1))}'", "ip netns list"),
    ),
    (
        r'(?:exec of "|exec: "|: )?(\S*conntrack)"?(?: failed)?: (?:[^\n]*: )?(?:command )?'
        r"(?:not found|No such file or directory|executable file not found)",
        lambda m: Problem(f"{clean(m.group(1))} is not installed there", "apt install conntrack", NOT_FOUND),
    ),
    (
        r"ssh: ([^\n]+)|(Connection (?:closed|reset|refused|timed out)[^\n]*)",
        lambda m: Problem(f"ssh: {clean(m.group(1) or m.group(2))}"),
    ),
    (
        r"Error[^\n]*: (No such container: \S+|container \S+ is not running)",
        lambda m: Problem(f"docker: {clean(m.group(1))}", "docker ps"),
    ),
)
