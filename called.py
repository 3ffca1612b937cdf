"""How this program is called: the words that start it again, as whoever reads them would type them."""

from __future__ import annotations

import os
import shlex
import sys

from text import clean


def called() -> str:
    """The words that start this program from the folder it was started in.

    CONNTRACK_MONITOR_CALLED in place of them: in a container nobody has a shell to type at, so its compose file says
    what does it from outside.
    """
    if told := os.environ.get("CONNTRACK_MONITOR_CALLED"):
        return clean(told)
    try:
        return clean(_words(sys.argv[0], os.getcwd()))
    except OSError:  # the folder has gone
        return clean(os.path.basename(sys.argv[0]))


def _words(name: str, here: str) -> str:
    path = os.path.realpath(name)
    short = os.path.basename(name)
    if any(os.path.realpath(os.path.join(place, short)) == path for place in os.get_exec_path() if place):
        return shlex.quote(short)
    typed = name if "/" in name else f"./{name}"
    if path.endswith(".py") and sys.prefix != sys.base_prefix:  # of a checkout: only this Python has the packages
        python = sys.executable.removeprefix(f"{here}/")
        return f"{shlex.quote(python)} {shlex.quote(name)}"
    return shlex.quote(typed) if os.access(path, os.X_OK) else f"python3 {shlex.quote(name)}"
