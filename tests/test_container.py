"""Inside of the image: what hints say follows from how the container was started; played by namespaces, without an engine."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.kernel import Namespace, kernel_mark
from support.program import environment
from support.terminal import PROGRAM, ROOT

IMAGE = "an/image:1"
PERMITTED = f"run --network host --cap-add NET_ADMIN {IMAGE}"
pytestmark = kernel_mark()


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    with Namespace("in") as made:
        yield made


def said(namespace: Namespace, folder: Path, *before: str, **more: str) -> str:
    """What `--once` says on standard error."""
    env = {**os.environ, **environment(folder), "CONNTRACK_MONITOR_IMAGE": IMAGE, **more}
    argv = [*namespace.prefix, *before, *PROGRAM, "--no-config", "--once"]
    return subprocess.run(argv, env=env, capture_output=True, text=True, timeout=60, check=False).stderr


def test_a_network_of_its_own_is_no_matter_of_rules(namespace: Namespace, tmp_path: Path) -> None:
    own = "0 entries: this container has a network of its own; try: "
    assert own + f"docker {PERMITTED}\n" in said(namespace, tmp_path)  # as with --network none
    assert own + f"podman {PERMITTED}\n" in said(namespace, tmp_path, container="podman")
    with Namespace("ou") as outside:  # as on a bridge: its only interface has its other end elsewhere
        words = ["ip", "link", "add", "eth0", "type", "veth", "peer", "name", "veth0", "netns", outside.name]
        namespace.run(words)
        assert own in said(namespace, tmp_path)
    namespace.run(["ip", "link", "add", "lan", "type", "bridge"])  # as with --network host
    assert "try: iptables -I INPUT" in said(namespace, tmp_path)
    assert "try: iptables -I INPUT" in said(namespace, tmp_path, KUBERNETES_SERVICE_HOST="10.0.0.1")


def test_without_a_right_it_is_said_how_it_has_one(namespace: Namespace, tmp_path: Path) -> None:
    namespace.run(["ip", "link", "add", "lan", "type", "bridge"])
    what = "not permitted: reading the connection table needs root or CAP_NET_ADMIN; try: "
    bare = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"]
    assert what + f"docker {PERMITTED}\n" in said(namespace, tmp_path, *bare)
    user = ["unshare", "--user"]  # nobody
    assert what + f"docker run --network host --cap-add NET_ADMIN --user 0 {IMAGE}\n" in said(
        namespace, tmp_path, *user
    )
    rootless = ["unshare", "--user", "--map-root-user"]
    assert what + f"sudo podman {PERMITTED}\n" in said(namespace, tmp_path, *rootless, container="podman")
    assert what + "do this\n" in said(namespace, tmp_path, *bare, CONNTRACK_MONITOR_PERMIT="do this")


def test_without_root_its_own_network_is_all_it_sees(namespace: Namespace, tmp_path: Path) -> None:
    own = ["unshare", "--user", "--map-root-user", "--net"]
    words = said(namespace, tmp_path, *own, container="podman")
    assert (
        f"0 entries: this container was started without root and has a network of its own; try: sudo podman {PERMITTED}\n"
        in words
    )


@pytest.mark.parametrize("place", ["docker/containers/{}/hosts", "overlay-containers/{}/userdata/hosts"])
def test_databases_are_fetched_by_the_name_that_its_engine_gave(
    place: str, namespace: Namespace, tmp_path: Path
) -> None:
    mounted = tmp_path / place.format("0123456789abcdef" * 4)
    mounted.parent.mkdir(parents=True)
    mounted.write_text("")
    mount = 'mount --bind "$0" /etc/hosts && exec "$@"'
    before = ["unshare", "--mount", "sh", "-c", mount, str(mounted)]
    env = {**os.environ, **environment(tmp_path), "CONNTRACK_MONITOR_IMAGE": IMAGE}
    argv = [*namespace.prefix, *before, *PROGRAM, "--no-config", "--json", "--no-download"]
    with subprocess.Popen(argv, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            hint = next(line for line in process.stderr if "no GeoIP database" in line)
        finally:
            process.terminate()
    assert hint.endswith("; try: docker exec 0123456789ab conntrack-monitor --update-geoip\n")


def test_the_demo_of_a_linked_program(tmp_path: Path) -> None:
    """As the image has it: a link in /usr/local/bin to the program, and the recording beside that."""
    link = tmp_path / "conntrack-monitor"
    link.symlink_to(ROOT / "conntrack_monitor.py")
    env = {**os.environ, **environment(tmp_path)}
    argv = [sys.executable, str(link), "--no-config", "--demo", "--once", "--limit", "1", "--json"]
    done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout.count("\n")) == (0, 1), done.stderr
