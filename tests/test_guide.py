"""The well-known guide to running a conntrack monitor in a container: its commands, typed as they stand, in its order.

Whoever has followed it, or has an installation by it, must get along here: the same folder, container, image, volume.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.docker import IMAGE, KEPT, NAME, PLUGIN, ROOT, Engine, missing_engine
from support.machine import UID, Machine, missing_machine
from support.terminal import Terminal
from support.waiting import wait_for

make_mmdb = pytest.importorskip("support.mmdb", reason="needs mmdb-writer and netaddr")

REASON = missing_engine() or missing_machine()
pytestmark = pytest.mark.skipif(bool(REASON) and os.environ.get("CI") != "true", reason=REASON or "no reason")
VOLUME = "conntrack-monitor_geoip-data"
AWAY = "\x10\x11"  # Ctrl+P Ctrl+Q


@pytest.fixture(params=["1", *(["2"] if PLUGIN else [])], ids=lambda version: f"compose {version}")
def compose(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def machine(request: pytest.FixtureRequest, engine: Engine, compose: str) -> Iterator[Machine]:
    """With the image, as its registry is not reached from here; nothing else of ours."""
    engine.docker("tag", KEPT, IMAGE)
    engine.remove()
    engine.namespace.run(["conntrack", "-F"])
    engine.add_flow("10.1.2.3", "8.8.8.8")
    with Machine(engine, getattr(request, "param", "root"), compose) as made:
        shutil.copy(ROOT / "setup-conntrack-monitor.sh", made.home)
        yield made
    engine.remove()
    engine.docker("tag", KEPT, IMAGE)


def interrupted(terminal: Terminal) -> bool:
    """Press Ctrl+C; has that ended it? A client that has only begun takes no notice, nor one that gets many at once."""
    terminal.type("\x03")
    until = time.monotonic() + 1
    while terminal.read(0.1):
        if time.monotonic() > until:
            return False
    return True


def owned(machine: Machine, path: Path) -> None:
    if machine.who != "root":
        os.chown(path, UID, UID)


# Who types and which compose it is have nothing to do with each other: 1, which takes three times as long, gets one of
# the three where 2 gets all.
@pytest.mark.parametrize(
    ("compose", "machine"),
    [
        ("2" if PLUGIN else "1", "root"),
        ("2" if PLUGIN else "1", "docker"),
        ("1", "sudo"),
        *([("2", "sudo")] if PLUGIN else []),
    ],
    indirect=True,
)
def test_the_guide(machine: Machine, engine: Engine, compose: str) -> None:
    # Automated setup
    printed = machine.type("./setup-conntrack-monitor.sh MyPassword123")
    assert [f"[{number}]" in printed for number in range(1, 7)] == [True] * 6, printed
    assert ("continuing with sudo" in printed) == (machine.who == "sudo")
    assert engine.status() == "running"
    machine.unlock()

    # Viewing it, and looking away
    with machine.screen("docker attach conntrack-monitor") as terminal:
        terminal.wait("10.1.2.3")
        terminal.type(AWAY)
        terminal.end()
    assert engine.status() == "running"

    # A session of its own; "docker compose" is a command of compose 2 only, 1 can't do it beside the service
    if compose == "2":
        with machine.screen("cd ~/conntrack-monitor\ndocker compose run --rm conntrack-monitor") as terminal:
            terminal.wait("10.1.2.3")
            terminal.type("q")
            assert terminal.end() == 0

    # Management
    machine.type("cd ~/conntrack-monitor && docker-compose up -d")
    machine.type("cd ~/conntrack-monitor && docker-compose down")
    assert engine.status() == ""
    machine.type("cd ~/conntrack-monitor && docker-compose up -d")
    machine.type("docker restart conntrack-monitor")
    assert "Up" in machine.type("docker ps | grep conntrack-monitor")
    with machine.screen("docker logs conntrack-monitor -f") as terminal:
        wait_for(lambda: interrupted(terminal), what="the end of docker logs")
        terminal.end()

    # Databases of one's own, as a careful umask left them
    city, asn = machine.home / "GeoLite2-City.mmdb", machine.home / "GeoLite2-ASN.mmdb"
    make_mmdb.write(city, "GeoLite2-City", {"8.8.8.0/24": make_mmdb.place("SE", "Sweden", "Kiruna")})
    record = {"autonomous_system_number": 64_500, "autonomous_system_organization": "Example Net"}
    make_mmdb.write(asn, "GeoLite2-ASN", {"8.8.8.0/24": record})
    for path in (city, asn):
        path.chmod(0o600)
        owned(machine, path)
    machine.type("docker cp GeoLite2-City.mmdb conntrack-monitor:/usr/share/GeoIP/")
    machine.type("docker cp GeoLite2-ASN.mmdb conntrack-monitor:/usr/share/GeoIP/")
    machine.type("docker restart conntrack-monitor")
    with machine.screen("docker attach conntrack-monitor") as terminal:
        terminal.wait(lambda: "Kiruna" in terminal.text and "Example Net" in terminal.text)
        terminal.type(AWAY)
        terminal.end()
    listed = machine.type("docker exec conntrack-monitor ls -la /usr/share/GeoIP/")
    assert re.search(r"-rw------- .* GeoLite2-City\.mmdb", listed)

    # Uninstalling
    machine.type("cd ~/conntrack-monitor\ndocker-compose down")
    machine.type("docker volume rm conntrack-monitor_geoip-data")
    machine.type("rm -rf ~/conntrack-monitor")
    machine.type("docker rmi ghcr.io/0xf00f00/conntrack-monitor:latest")
    assert engine.docker("ps", "-aq") == ""
    assert engine.docker("volume", "ls", "-q") == ""
    assert IMAGE not in engine.docker("images", "--format", "{{.Repository}}:{{.Tag}}")
    mine = {path.name for path in machine.home.iterdir() if not path.name.startswith(".")}
    assert mine == {"setup-conntrack-monitor.sh", city.name, asn.name}


# As the guide's has it, but for "privileged: true", which not every kernel that tests run on allows.
THEIRS = f"""\
version: '3.8'
services:
  conntrack-monitor:
    image: {IMAGE}
    container_name: conntrack-monitor
    cap_add:
      - NET_ADMIN
    tty: true
    stdin_open: true
    network_mode: host
    volumes:
      - geoip-data:/usr/share/GeoIP
    environment:
      - GEOIP_DB_PATHS=/usr/share/GeoIP
    restart: unless-stopped
volumes:
  geoip-data:
    driver: local
"""


def put_into(engine: Engine, volume: str, name: str, text: str) -> None:
    words = ["run", "--rm", "-v", f"{volume}:/v", "--entrypoint", "sh", KEPT, "-c", f"echo {text} >/v/{name}"]
    engine.docker(*words)


def found_in(engine: Engine, volume: str) -> dict[str, str]:
    words = ["run", "--rm", "-v", f"{volume}:/v", "--entrypoint", "sh", KEPT, "-c"]
    lines = engine.docker(*words, 'cd /v && for f in *.mmdb; do echo "$f:$(cat "$f")"; done').splitlines()
    return dict(line.split(":", 1) for line in lines)


def test_an_installation_by_the_guide_is_renewed_with_its_databases(machine: Machine, engine: Engine) -> None:
    folder = machine.home / NAME
    folder.mkdir()
    (folder / "docker-compose.yml").write_text(THEIRS)
    machine.type("cd ~/conntrack-monitor && docker-compose up -d")
    put_into(engine, VOLUME, "GeoLite2-City.mmdb", "theirs")
    engine.docker("volume", "create", "geoip-data")  # and one of an earlier version
    put_into(engine, "geoip-data", "GeoLite2-ASN.mmdb", "ours")
    printed = machine.type("./setup-conntrack-monitor.sh")
    assert "with the files of geoip-data of an earlier version" in printed
    assert (folder / "docker-compose.yml.old").read_text() == THEIRS
    assert engine.status() == "running"
    assert engine.inspect("{{range .Mounts}}{{.Name}}{{end}}") == VOLUME
    assert found_in(engine, VOLUME) == {"GeoLite2-City.mmdb": "theirs", "GeoLite2-ASN.mmdb": "ours"}
    engine.inside("rm", "/usr/share/GeoIP/GeoLite2-ASN.mmdb")
    assert "earlier version" not in machine.type("./setup-conntrack-monitor.sh")
    assert found_in(engine, VOLUME) == {"GeoLite2-City.mmdb": "theirs"}  # what was removed does not come back
    machine.type("./setup-conntrack-monitor.sh --uninstall --purge --yes")
    assert engine.docker("volume", "ls", "-q") == ""
    assert not folder.exists()


@pytest.mark.parametrize("by", ["compose", "docker run"])
def test_what_does_not_start_leaves_what_ran_before(machine: Machine, engine: Engine, by: str) -> None:
    if by == "compose":
        machine.type("./setup-conntrack-monitor.sh")
    else:
        machine.type(f"docker run -dit --name {NAME} --network host --cap-add NET_ADMIN {IMAGE}")
    folder = machine.home / NAME
    before = {path.name: path.read_bytes() for path in folder.glob("*")}
    facts = engine.inspect("{{.Image}} {{.Config.Image}} {{.State.Running}} {{.HostConfig.NetworkMode}}")
    context = machine.folder / "broken"
    context.mkdir()
    (context / "Dockerfile").write_text(f'FROM {KEPT}\nENTRYPOINT ["sh", "-c", "echo it is broken; exit 1"]\n')
    (machine.home / "Dockerfile").write_text(
        (context / "Dockerfile").read_text()
    )  # a checkout that builds what is broken
    shutil.copy(machine.home / "Dockerfile", context)
    words = "./setup-conntrack-monitor.sh --build || echo status $?"
    printed = machine.type(words)
    assert "it is broken" in printed
    assert "The previous installation is restored." in printed
    assert "status 8" in printed
    wait_for(lambda: engine.status() == "running", what="what was there before")
    assert engine.inspect("{{.Image}} {{.Config.Image}} {{.State.Running}} {{.HostConfig.NetworkMode}}") == facts
    assert {path.name: path.read_bytes() for path in folder.glob("*")} == before
    assert engine.docker("ps", "-a", "--format", "{{.Names}}").split() == [NAME]
    assert engine.docker("image", "inspect", "-f", "{{.Id}}", IMAGE) == engine.docker(
        "image", "inspect", "-f", "{{.Id}}", KEPT
    )
