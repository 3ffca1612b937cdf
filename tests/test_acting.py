"""x, y and e as a person presses them, on the screen over a real kernel's table."""

from __future__ import annotations

import base64
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from faults import OnScreen
from lab import Namespace, conntrack_xml, insert_arguments, kernel_mark, load
from test_faults_kernel import inside

pytestmark = kernel_mark()
SIZE = (120, 30)


@pytest.fixture
def ns() -> Iterator[Namespace]:
    with Namespace() as made:
        words = [
            insert_arguments(src=f"10.0.0.{host}", dst="192.0.2.9", sport=port, dport=80, timeout=3600)
            for host in (1, 2)
            for port in (1001, 1002, 1003)
        ]
        load(made, ["-I " + " ".join(entry) for entry in words])
        yield made


def entries(ns: Namespace) -> set[tuple[object, object]]:
    return {(flow["src"], flow["sport"]) for flow in map(_ends, conntrack_xml(ns))}


def _ends(flow: dict[str, object]) -> dict[str, object]:
    original = flow["original"]
    assert isinstance(original, dict)
    return original


def test_one_flow_is_deleted_after_yes(ns: Namespace, tmp_path: Path) -> None:
    with OnScreen(tmp_path, "--allow-delete", "--sort", "source", size=SIZE, program=inside(ns)) as screen:
        screen.wait("Connections · 6")
        screen.type("jx")
        screen.wait("it matches 1 entry")
        assert "conntrack -D" in screen.text
        screen.type("\r")  # the default is No
        screen.wait("nothing was deleted")
        assert len(entries(ns)) == 6
        screen.type("x")
        screen.wait("it matches 1 entry")
        screen.type("y\r")
        screen.wait("1 deleted")
        screen.wait("Connections · 5")
        assert entries(ns) == {(f"10.0.0.{host}", port) for host in (1, 2) for port in (1001, 1002, 1003)} - {
            ("10.0.0.1", 1001)
        }
        screen.leave()


def test_a_host_s_flows_are_deleted_after_their_number_was_typed(ns: Namespace, tmp_path: Path) -> None:
    with OnScreen(
        tmp_path, "--allow-delete", "--view", "hosts", "--sort", "host", size=SIZE, program=inside(ns)
    ) as screen:
        screen.wait("Hosts · 2")
        screen.type("j")
        screen.type("x")
        screen.wait("they match 3 entries")
        screen.type("3\r")
        screen.wait("3 deleted")
        assert entries(ns) == {("10.0.0.2", port) for port in (1001, 1002, 1003)}
        screen.leave()


def test_what_the_filter_wants(ns: Namespace, tmp_path: Path) -> None:
    with OnScreen(tmp_path, "--allow-delete", size=SIZE, program=inside(ns)) as screen:
        screen.wait("Connections · 6")
        screen.type("X")
        screen.wait("nothing is meant")
        screen.type("/sport:1002\r")
        screen.wait("2 of 6")
        screen.type("X")
        screen.wait("they match 2 entries")
        screen.type("\x1b")
        screen.wait("nothing was deleted")
        screen.type("X")
        screen.wait("they match 2 entries")
        screen.type("2\r")
        screen.wait("2 deleted")
        assert entries(ns) == {(f"10.0.0.{host}", port) for host in (1, 2) for port in (1001, 1003)}
        screen.leave()


def test_it_must_be_allowed(ns: Namespace, tmp_path: Path) -> None:
    with OnScreen(tmp_path, size=SIZE, program=inside(ns)) as screen:
        screen.wait("Connections · 6")
        screen.type("jx")
        screen.wait("start with --allow-delete")
        assert len(entries(ns)) == 6
        screen.leave()


def test_copy_and_export(ns: Namespace, tmp_path: Path) -> None:
    with OnScreen(tmp_path, "--sort", "source", size=SIZE, program=inside(ns)) as screen:
        screen.wait("Connections · 6")
        screen.type("jy")
        screen.wait("copied, if")
        text = screen.seen.partition(b"\x1b]52;c;")[2].partition(b"\a")[0]
        assert b"src=10.0.0.1 dst=192.0.2.9 sport=1001 dport=80" in base64.b64decode(text)
        path = tmp_path / "out.json"
        screen.type("e\x15" + str(path) + "\r")
        screen.wait("6 rows exported to")
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
        assert {json.loads(line)["original"]["sport"] for line in path.read_text().splitlines()} == {1001, 1002, 1003}
        screen.leave()


def test_names_of_hosts_are_off_until_asked_for(ns: Namespace, tmp_path: Path) -> None:
    """127.0.0.1 has a name in /etc/hosts; from this namespace no name server can be reached."""
    words = insert_arguments(src="127.0.0.1", dst="192.0.2.9", sport=2001, dport=80, timeout=3600)
    load(ns, ["-I " + " ".join(words)])
    with OnScreen(tmp_path, "--filter", "sport:2001", size=SIZE, program=inside(ns)) as screen:
        screen.wait("127.0.0.1:2001")
        screen.type("N")
        screen.wait("localhost:2001")
        screen.type("N")
        screen.wait("127.0.0.1:2001")
        screen.wait("names of hosts are off")
        screen.leave()
