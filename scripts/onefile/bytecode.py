"""Compiled modules of the one file, kept in the user's cache as Python keeps a checkout's in __pycache__.

Python never writes what it compiled for a zip file, and bytecode inside would be of one Python version only. Without
any a start takes 0.3 s in place of 0.1 s. So the first start compiles all (0.5 s) into
``~/.cache/conntrack-monitor/code/NAME``; NAME tells contents and Python version. Read whole at each start, it also
keeps a running screen independent of the file that an upgrade writes over. Where it can't be kept, or the folder may
be written by others, everything is compiled anew at each start. PYTHONDONTWRITEBYTECODE speaks of files beside the
source and changes nothing here.
"""

from __future__ import annotations

import marshal
import os
import stat
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import CodeType, ModuleType

from built_from import DIGEST

Modules = dict[str, tuple[bool, bytes]]  # name -> is it a package, its marshalled code
# Half of all the code, and read on a few terminals only: the widths that some of them give to emoji.
RARE = "wcwidth.table_grapheme_overrides._known"


class Kept:
    """Finds and loads modules from what was kept."""

    def __init__(self, archive: str, modules: Modules) -> None:
        self._archive = archive
        self._modules = modules

    def find_spec(self, name: str, _path: Sequence[str] | None = None, _target: object = None) -> ModuleSpec | None:
        if name not in self._modules:
            return None
        package = self._modules[name][0]
        place = os.path.join(self._archive, *name.split("."))
        origin = os.path.join(place, "__init__.py") if package else f"{place}.py"
        spec = ModuleSpec(name, self, origin=origin, is_package=package)  # type: ignore[arg-type]
        spec.has_location = True
        if package:
            spec.submodule_search_locations = [place]  # for those that are not kept
        return spec

    def create_module(self, _spec: ModuleSpec) -> ModuleType | None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        exec(self.get_code(module.__name__), module.__dict__)

    def get_code(self, name: str) -> CodeType:
        code = marshal.loads(self._modules[name][1])
        assert isinstance(code, CodeType)
        return code


def use(archive: str) -> None:
    """Import from what was kept; keep it first, where that was not done yet. Whatever fails costs only time."""
    archive = os.path.abspath(archive)
    try:
        folder = _folder()
        if not folder:
            return
        path = os.path.join(folder, f"{DIGEST[:16]}.{sys.implementation.cache_tag}")
        modules = _read(path)
        if modules is None:
            modules = _compiled(archive)
            _write(path, modules)
    except (OSError, ValueError, SyntaxError):
        return
    sys.meta_path.insert(0, Kept(archive, modules))


def _folder() -> str:
    """Our folder in the cache; "" if it is not the user's alone: what is kept there will be run, perhaps by root."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(base):
        base = os.path.join(os.path.expanduser("~"), ".cache")
    folder = there = os.path.join(base, "conntrack-monitor", "code")
    while not os.path.lexists(there):
        there = os.path.dirname(there)
    if os.lstat(there).st_uid != os.geteuid():  # sudo that keeps HOME: leave nothing of root's in a user's folder
        return ""
    os.makedirs(os.path.dirname(folder), exist_ok=True)
    if there != folder:
        os.mkdir(folder, 0o700)
    return folder if _is_ours(os.lstat(folder)) and not os.path.islink(folder) else ""


def _is_ours(state: os.stat_result) -> bool:
    return state.st_uid == os.geteuid() and not stat.S_IMODE(state.st_mode) & 0o022


def _read(path: str) -> Modules | None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    with open(fd, "rb") as file:
        if not _is_ours(os.fstat(fd)):
            return None
        try:
            found: Modules = marshal.loads(file.read())
            return found if isinstance(found, dict) else None
        except (ValueError, EOFError, TypeError):
            return None  # not whole


def _compiled(archive: str) -> Modules:
    from zipfile import ZipFile

    modules: Modules = {}
    with ZipFile(archive) as file:
        for entry in file.namelist():
            if not entry.endswith(".py"):
                continue
            name = entry[:-3].replace("/", ".")
            package = name.endswith(".__init__")
            name = name.removesuffix(".__init__")
            if name != "__main__" and not name.startswith(RARE):
                code = compile(file.read(entry), os.path.join(archive, entry), "exec", dont_inherit=True)
                modules[name] = (package, marshal.dumps(code))
    return modules


def _write(path: str, modules: Modules) -> None:
    """All or nothing: others may be starting, too."""
    part = f"{path}.{os.getpid()}"
    try:
        with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
            file.write(marshal.dumps(modules))
        os.replace(part, path)
    except OSError:
        if os.path.exists(part):
            os.unlink(part)
        raise
    folder, own = os.path.split(path)
    for name in os.listdir(folder):  # of the release before; who runs that has read it
        if name != own and f".{sys.implementation.cache_tag}" in name:
            os.unlink(os.path.join(folder, name))
