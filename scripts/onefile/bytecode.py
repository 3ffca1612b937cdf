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
import re
import stat
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import CodeType, ModuleType

from built_from import DIGEST, MODULES

Modules = dict[str, tuple[bool, bytes]]  # name -> is it a package, its marshalled code
FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
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
        if folder is None:
            return
        try:
            name = f"{DIGEST[:16]}.{sys.implementation.cache_tag}"
            modules = _read(folder, name)
            if modules is None:
                modules = _compiled(archive)
                _write(folder, name, modules)
        finally:
            os.close(folder)
    except (OSError, ValueError, SyntaxError, ImportError):  # a small Python
        return
    sys.meta_path.insert(0, Kept(archive, modules))


def _folder() -> int | None:
    """Our folder in the cache, open; None if it is not the user's alone: what is kept will be run, perhaps by root.

    Below the cache nothing is followed: a link of a user's, seen by a root whose sudo keeps HOME, would lead root's
    writing and deleting anywhere. What is found stays the same folder, whatever is put in its place.
    """
    base = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(base):
        base = os.path.join(os.path.expanduser("~"), ".cache")
    there = base
    while not os.path.lexists(there):
        there = os.path.dirname(there)
    if os.lstat(there).st_uid != os.geteuid():  # sudo that keeps HOME: leave nothing of root's in a user's folder
        return None
    os.makedirs(base, exist_ok=True)
    folder = os.open(base, FOLDER)
    for name, mode in (("conntrack-monitor", 0o777), ("code", 0o700)):
        above = folder
        try:
            folder = _below(above, name, mode)
        finally:
            os.close(above)
    if _is_ours(os.fstat(folder)):
        return folder
    os.close(folder)
    return None


def _below(above: int, name: str, mode: int) -> int:
    """A folder in an open folder of ours, made where there is none; OSError for a link and for others' folders."""
    if os.fstat(above).st_uid != os.geteuid():
        raise PermissionError
    try:
        os.mkdir(name, mode, dir_fd=above)
    except FileExistsError:
        pass
    return os.open(name, FOLDER | os.O_NOFOLLOW, dir_fd=above)


def _is_ours(state: os.stat_result) -> bool:
    return state.st_uid == os.geteuid() and not stat.S_IMODE(state.st_mode) & 0o022


def _read(folder: int, name: str) -> Modules | None:
    try:
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
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
    from zipimport import zipimporter  # zipfile wants pathlib, and that urllib, which OpenWrt has in another package

    modules: Modules = {}
    read = zipimporter(archive).get_data
    for entry in MODULES:
        name = entry[:-3].replace("/", ".")
        package = name.endswith(".__init__")
        name = name.removesuffix(".__init__")
        if name != "__main__" and not name.startswith(RARE):
            path = os.path.join(archive, *entry.split("/"))
            modules[name] = (package, marshal.dumps(compile(read(path), path, "exec", dont_inherit=True)))
    return modules


def _write(folder: int, own: str, modules: Modules) -> None:
    """All or nothing: others may be starting, too."""
    part = f"{own}.{os.getpid()}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        with open(os.open(part, flags, 0o600, dir_fd=folder), "wb") as file:
            file.write(marshal.dumps(modules))
        os.replace(part, own, src_dir_fd=folder, dst_dir_fd=folder)
    except OSError:
        try:
            os.unlink(part, dir_fd=folder)
        except FileNotFoundError:
            pass
        raise
    ours = re.compile(rf"[0-9a-f]{{16}}\.{re.escape(str(sys.implementation.cache_tag))}(\.[0-9]+)?")
    for name in os.listdir(folder):  # of the release before; who runs that has read it
        if name != own and ours.fullmatch(name):
            os.unlink(name, dir_fd=folder)
