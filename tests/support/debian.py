"""A bare Debian, made here by one debootstrap: what the one file is tried in, and the base of the tests' container image.

:func:`base` makes it as a tar file, about 20 s; TEST_BASE=FILE keeps that for the next run, and `make test` for its parts.
:func:`make` puts Python and conntrack into a folder with it; what runs there does so with ``chroot`` in a network namespace:
no network, the namespace's connection table. Needs root and debootstrap.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from support.kernel import Namespace, missing

PACKAGES = ("python3", "conntrack")
QUIET = {"DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"}
SLIM = ("usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/info", "var/lib/apt/lists", "var/cache/apt")
# /proc is mounted in the private mount namespace that "ip netns exec" makes: it goes with the command.
ENTER = 'mount -t proc proc "$0/proc" && exec chroot "$0" "$@"'


def missing_debian() -> str:
    """What is lacking here, as a sentence; "" when there can be one."""
    return missing() or ("" if shutil.which("debootstrap") else "not installed: debootstrap")


def run(*argv: str, env: dict[str, str] | None = None, check: bool = True, timeout: float = 300) -> str:
    """What a command printed, both ways; AssertionError with it if it fails."""
    done = subprocess.run(
        argv,
        env={**os.environ, **(env or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=timeout,
        text=True,
        errors="replace",
    )
    assert not check or done.returncode == 0, f"{' '.join(argv)}: exit status {done.returncode}\n{done.stdout}"
    return done.stdout


def memory_free() -> int:
    """Bytes that could be had."""
    found = re.search(r"^MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text(), re.M)
    return int(found.group(1)) << 10 if found else 0


@contextlib.contextmanager
def quick_folder(name: str) -> Iterator[Path]:
    """A folder for much that is written once: in memory where there is enough, a third of the time on a busy disk."""
    folder = Path(tempfile.mkdtemp(prefix=f"cm-{name}-"))
    try:
        if memory_free() > 8 << 30:  # all together take 2 GB
            run("mount", "-t", "tmpfs", "-o", "size=4g", f"cm-{name}", str(folder))
        yield folder
    finally:
        mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
        for mount in sorted((mount for mount in mounts if f"{mount}/".startswith(f"{folder}/")), reverse=True):
            subprocess.run(["umount", "-l", mount], check=False)
        shutil.rmtree(folder, ignore_errors=True)


def mirror() -> tuple[str, str]:
    """Where this machine's apt gets its main packages from, and the suite."""
    printed = run("apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE) $(COMPONENT)", "Created-By: Packages")
    release = run("sh", "-c", ". /etc/os-release && echo $VERSION_CODENAME").strip()
    for line in printed.splitlines():
        uri, suite, component = line.split()
        if component == "main" and suite == release:
            return uri, suite
    raise AssertionError(f"apt knows no {release} main here:\n{printed}")


def base(folder: Path, other: str = "") -> Path:
    """A slim Debian as a tar file in a folder, or where TEST_BASE says: the machine's own, or another suite's.

    Whoever asks for the same place at the same time waits for it.
    """
    at = os.environ.get("TEST_BASE", "")
    tar = Path(f"{at}{'.' * bool(other)}{other}" if at else folder / f"base{other}.tar")
    with open(f"{tar}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not tar.exists():
            _bootstrap(folder / f"base{other}", other, tar)
    return tar


def _bootstrap(tree: Path, other: str, tar: Path) -> None:
    uri, suite = mirror()
    run("debootstrap", "--variant=minbase", other or suite, str(tree), uri)
    for name in SLIM:
        for path in (tree / name).glob("*"):
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    (tree / "etc/dpkg/dpkg.cfg.d/slim").write_text("".join(f"path-exclude /{name}/*\n" for name in SLIM[:4]))
    (tree / "etc/dpkg/dpkg.cfg.d/fast").write_text("force-unsafe-io\n")  # as the official images have it
    pack(tree, tar)
    shutil.rmtree(tree)


def pack(tree: Path, tar: Path) -> None:
    run("tar", "-C", str(tree), "-cf", f"{tar}.part", ".")
    Path(f"{tar}.part").replace(tar)


def unpack(tar: Path, tree: Path) -> None:
    tree.mkdir(exist_ok=True)
    run("tar", "-C", str(tree), "-xf", str(tar))


def make(tree: Path, tar: Path) -> None:
    """Fill a folder with the bare Debian, Python and conntrack. Its apt has gone the way of this machine's."""
    unpack(tar, tree)
    ours = as_this_machine(tree)
    run("chroot", str(tree), "apt-get", "update", "-qq", env=QUIET)
    run("chroot", str(tree), "apt-get", "install", "-qq", "--no-install-recommends", *PACKAGES, env=QUIET)
    for path in ours:
        path.unlink()


def as_this_machine(tree: Path) -> list[Path]:
    """Let apt in there go the way of this machine's; the files that say so."""
    settings, names = tree / "etc/apt/apt.conf.d/99machine", tree / "etc/resolv.conf"
    settings.write_text("".join(acquire_lines()))
    shutil.copy("/etc/resolv.conf", names)
    return [settings, names]


@contextlib.contextmanager
def over(lower: Path, folder: Path) -> Iterator[Path]:
    """A tree that begins as another one is; what is written goes with the block."""
    for name in ("upper", "work", "tree"):
        (folder / name).mkdir(parents=True)
    places = f"lowerdir={lower},upperdir={folder / 'upper'},workdir={folder / 'work'}"
    run("mount", "-t", "overlay", "-o", places, "overlay", str(folder / "tree"))
    try:
        yield folder / "tree"
    finally:
        run("umount", "-l", str(folder / "tree"))
        shutil.rmtree(folder, ignore_errors=True)


def inside(namespace: Namespace, tree: Path) -> list[str]:
    """The words that put a command into the folder and the namespace; the first is an absolute path."""
    ip, *words = namespace.prefix
    return [shutil.which(ip) or ip, *words, "sh", "-c", ENTER, str(tree)]


# --- this machine's settings ----------------------------------------------------------------------


def acquire_lines() -> list[str]:
    """How this machine's apt fetches: its settings of one line each."""
    files = sorted(Path("/etc/apt/apt.conf.d").iterdir())
    lines = [line for file in files if file.is_file() for line in file.read_text(errors="replace").splitlines()]
    return [line + "\n" for line in lines if line.startswith("Acquire::") and line.rstrip().endswith(";")]


def behind_proxy(tree: Path, proxy: str) -> None:
    """Give a tree this machine's settings of apt and pip, but with another way out."""
    _apt_settings(tree / "etc/apt", proxy)
    pip_settings(tree / "etc", f"proxy = {proxy}")


@contextlib.contextmanager
def base_behind(proxy: str, debian: Path, folder: Path) -> Iterator[Path]:
    """The archive of a base image that goes out by this proxy; it is gone afterwards. ``debian``: a bare one's archive."""
    tree, tar = folder / "base", folder / "base.tar"
    unpack(debian, tree)
    behind_proxy(tree, proxy)
    pack(tree, tar)
    shutil.rmtree(tree)
    yield tar
    tar.unlink()


def _apt_settings(apt: Path, proxy: str) -> None:
    here = Path("/etc/apt")
    (apt / "sources.list").unlink(missing_ok=True)
    for name in ("sources.list", "sources.list.d", "trusted.gpg.d", "auth.conf.d", "keyrings"):
        if (here / name).is_dir():
            shutil.copytree(here / name, apt / name, dirs_exist_ok=True)
        elif (here / name).exists():
            shutil.copy(here / name, apt / name)
    settings = [f'Acquire::{scheme}::Proxy "{proxy}";\n' for scheme in ("http", "https")]
    settings += [line for line in acquire_lines() if not re.match(r"Acquire::https?::Proxy", line)]
    (apt / "apt.conf.d/99machine").write_text("".join(settings) + 'Acquire::http::Pipeline-Depth "0";\n')


def pip_settings(etc: Path, *more: str) -> None:
    lines = ["[global]", "timeout = 60", *more]
    settings: dict[str, str] = {}
    for line in run(sys.executable, "-m", "pip", "config", "list").splitlines():
        key, _, value = line.partition("=")
        settings[key.rpartition(".")[2]] = value.strip("'\"")
    for key in ("index-url", "extra-index-url", "trusted-host"):
        places = [word for word in settings.get(key, "").replace("\\n", " ").split() if not word.startswith("file:")]
        lines += [f"{key} = {' '.join(places)}"] if places else []
    authority = settings.get("cert", "/etc/ssl/certs/ca-certificates.crt")
    if Path(authority).exists():  # not at the usual place: a package would write over it
        shutil.copy(authority, etc / "machine-authorities.pem")
        lines.append("cert = /etc/machine-authorities.pem")
    (etc / "pip.conf").write_text("\n".join(lines) + "\n")
