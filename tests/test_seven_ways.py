"""Seven ways to install it, each from nothing to the first screen, and each removed again without a trace.

Here five of them, in a bare Debian 12 and 13: pipx, uv, the wheel, the Debian package, the one file, each typed as
docs/install.md has it. The other two are engines' own: the image by Docker and by Podman, by hand and by the setup
script, in tests/test_docker.py and tests/test_podman.py (..._from_nothing_to_...).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from support import debian as bare
from support.kernel import Namespace, insert, kernel_mark
from support.terminal import Terminal

ROOT = Path(__file__).parent.parent
NAME = "conntrack-monitor"
HOME = "/root"
SUITES = {"12": "", "13": "trixie"}  # of Debian; "": this machine's
AUTHORITIES = "/etc/machine-authorities.pem"
pytestmark = kernel_mark()

# What is no trace of ours. apt's and dpkg's: lists, logs, caches, notes on packages; the loader's cache, which is written
# anew; the hosts file, which netbase makes and keeps. Tools' own, from whatever they install: their caches and locks.
KEPT = (
    *("var/lib/apt/", "var/lib/dpkg/", "var/cache/", "var/log/", "etc/ld.so.cache", "etc/hosts", "tmp/"),
    *(f"root/.cache/{tool}/" for tool in ("pip", "pipx", "uv")),
    *(f"root/.local/{place}/" for place in ("share/uv", "pipx", "share/pipx", "state/pipx")),
)


class Way(NamedTuple):
    """The words, in the shell of root, that install, start and remove it; %s is the file that is installed."""

    install: str
    start: str
    remove: str
    tools: bool = True  # it begins where python3, venv, pipx, uv and conntrack are


OURS = f"rm -r ~/.cache/{NAME}"  # what the program keeps, as docs/install.md says
WAYS = {
    "pipx": Way("pipx install %s", f"~/.local/bin/{NAME}", f"pipx uninstall {NAME}"),
    "uv": Way(
        "uv tool install --no-managed-python %s",
        f"~/.local/bin/{NAME}",
        f"uv tool uninstall {NAME}",
    ),
    "wheel": Way(
        "python3 -m venv /opt/monitor && /opt/monitor/bin/pip install %s",
        f"/opt/monitor/bin/{NAME}",
        f"/opt/monitor/bin/pip uninstall -y {NAME} && rm -r /opt/monitor",
    ),
    "deb": Way(
        "apt-get install -qq -y --no-install-recommends %s",
        NAME,
        f"apt-get purge -qq -y --autoremove {NAME} && {OURS}",
        False,
    ),
    "one file": Way(f"install %s /usr/local/bin/{NAME}", NAME, f"rm /usr/local/bin/{NAME} && {OURS}"),
}


class Files(NamedTuple):
    wheel: Path
    deb: Path
    pyz: Path

    def of(self, way: str) -> Path:
        return {"deb": self.deb, "one file": self.pyz}.get(way, self.wheel)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """As `make release-files` makes them, beside a file of the release before."""
    checkout = tmp_path_factory.mktemp("release") / "checkout"
    shutil.copytree(
        ROOT, checkout, ignore=shutil.ignore_patterns(".venv", "dist", ".*_cache", ".hypothesis", "__pycache__")
    )
    (checkout / ".venv").symlink_to(Path(sys.executable).parent.parent)
    dist = checkout / "dist"
    dist.mkdir()
    (dist / f"{NAME}_0.0.1_all.deb").write_text("old")
    done = subprocess.run(["make", "-C", str(checkout), "release-files"], capture_output=True, text=True, check=False)
    if done.returncode and os.environ.get("CI") != "true":
        pytest.skip(f"not made here: {done.stderr[-300:]}")
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,), (deb,), pyz = dist.glob("*.whl"), dist.glob("*.deb"), dist / f"{NAME}.pyz"
    said = bare.run("sh", "-c", f"cd {dist} && sha256sum -c SHA256SUMS")
    assert sorted(said.split()[::2]) == sorted(f"{path.name}:" for path in (wheel, deb, pyz))
    return Files(wheel, deb, pyz)


class Machine(NamedTuple):
    """Two trees: nothing but the bare Debian with apt's lists, and the same with tools."""

    nothing: Path
    tools: Path
    env: dict[str, str]


@pytest.fixture(scope="module", params=SUITES)
def machine(request: pytest.FixtureRequest, debian: Path) -> Iterator[Machine]:
    suite = SUITES[request.param]
    with bare.quick_folder(f"ways{request.param}") as folder:
        tar = bare.base(folder, suite) if suite else debian
        nothing = folder / "nothing"
        bare.unpack(tar, nothing)
        if suite and not os.environ.get("TEST_BASE"):
            tar.unlink()
        assert (nothing / "etc/debian_version").read_text().startswith(request.param)
        bare.as_this_machine(nothing)
        bare.pip_settings(nothing / "etc")
        env = {**bare.QUIET, "HOME": HOME, "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
        env |= {**uv_settings(), "CONNTRACK_MONITOR_NO_DOWNLOAD": "1", "LANG": "C.UTF-8", "TERM": "xterm-256color"}
        env |= {name: value for name, value in os.environ.items() if name.lower().endswith("_proxy")}
        if (nothing / AUTHORITIES[1:]).exists():
            env["SSL_CERT_FILE"] = AUTHORITIES
        bare.run(*enter(nothing, env, "apt-get update -qq"))
        with bare.over(nothing, folder / "tools") as tools:
            install = "apt-get install -qq -y --no-install-recommends python3 python3-venv pipx conntrack"
            bare.run(*enter(tools, env, f"{install} && python3 -m venv /opt/uv && /opt/uv/bin/pip install -q uv"))
            (tools / "usr/local/bin/uv").symlink_to("/opt/uv/bin/uv")
            yield Machine(nothing, tools, env)


def uv_settings() -> dict[str, str]:
    """This machine's package index, for uv, which reads no pip.conf."""
    from test_wheel import indexes

    return {name: value for name, value in indexes().items() if name != "SSL_CERT_FILE"}


def enter(tree: Path, env: Mapping[str, str], line: str, namespace: Sequence[str] = ()) -> list[str]:
    """The words that run a line of shell in there, with this environment, in this network or a namespace's."""
    mounts = 'cd "$0" && mount -t proc proc proc && mount --rbind /dev dev && exec env -i "$@"'
    words = [*(f"{name}={value}" for name, value in env.items()), "chroot", str(tree), "sh", "-c", line]
    return [*namespace, "unshare", "--mount", "sh", "-c", mounts, str(tree), *words]


def listing(tree: Path) -> set[str]:
    names = {str(path.relative_to(tree)) + "/" * path.is_dir() for path in tree.rglob("*")}
    names = {name for name in names if "__pycache__" not in name and not name.startswith(("proc/", "dev/", *KEPT))}
    parents = {f"{parent}/" for name in KEPT for parent in Path(name).parents}  # a folder that only holds these
    return {name for name in names - parents if not (name.startswith("root/.local/") and name.endswith("/"))}  # empty


@pytest.mark.parametrize("name", WAYS)
def test_from_nothing_to_the_first_screen_and_back(name: str, machine: Machine, files: Files) -> None:
    way, package = WAYS[name], files.of(name)
    where = f"/tmp/{package.name}"
    with bare.over(machine.tools if way.tools else machine.nothing, machine.nothing.parent / "way") as tree:
        before = listing(tree)
        (tree / "tmp").mkdir(exist_ok=True)
        shutil.copy(package, tree / where[1:])
        bare.run(*enter(tree, machine.env, way.install % where))
        assert listing(tree) != before
        with Namespace("wy") as namespace:
            insert(namespace, src="10.1.2.3", dst="192.0.2.8", protocol="udp", sport=4000, dport=53, timeout=300)
            with Terminal(program=enter(tree, machine.env, f"exec {way.start}", namespace.prefix)) as screen:
                screen.wait("192.0.2.8")
                screen.type("q")
                assert screen.end() == 0
        bare.run(*enter(tree, machine.env, way.remove))
        left = listing(tree)
        assert sorted(left - before) == []
        assert sorted(before - left) == []
