"""JSON lines in a NATS JetStream, by the scripts of contrib/nats: what is sent is stored, and comes back."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

from support.engines import jetstream, needs_engine, of_kernel, of_lines, spoken, traffic
from support.kernel import Lab, kernel_mark, listeners
from support.program import Piped
from support.waiting import PATIENCE, wait_for

pytestmark = needs_engine(modules={"nats": ".venv/bin/pip install -r requirements-dev.txt"})


def numbered(first: int, after: int, nodes: int) -> list[bytes]:
    """Lines of a flow's length, of many nodes in turns."""
    return [b'{"node":"r%d","time":"%d","event":"%b"}\n' % (n % nodes, n, b"x" * 380) for n in range(first, after)]


@kernel_mark()
def test_a_router_s_flows_come_back(tmp_path: Path) -> None:
    with Lab() as lab, jetstream(tmp_path) as its:
        words = ("--no-config", "--via", lab.router.via, "--node", "r7.lan", "--only", "new,destroy")
        with Piped(tmp_path, *words) as running:
            wait_for(lambda: listeners(lab.router))
            traffic(lab)
            kernel = of_kernel(lab)
            lab.router.run(["conntrack", "-F"])
            running.wait(lambda: running.lines() and running.out.read_bytes().endswith(b"\n"))
            running.wait(lambda: of_lines(running.out.read_bytes().splitlines()) == kernel)
            running.leave()
        sent = running.out.read_bytes().splitlines(keepends=True)
        assert f"{len(sent)} lines stored" in its.publish(sent)
        stored = its.stored("r7_lan")
        assert stored == sent
    assert of_lines(stored) == kernel
    assert len(kernel) > 25
    assert spoken("--replay", "-", "--json", given=b"".join(stored), folder=tmp_path) == b"".join(sent)
    alive = [line.replace(b'"event":"destroy"', b'"event":"list"') for line in stored]
    table = spoken("--replay", "-", "--once", "--json", given=b"".join(alive), folder=tmp_path).splitlines()
    assert of_lines([line for line in table if b'"bytes"' in line], "list") == kernel


def test_lines_of_many_nodes_are_stored_once_each_and_in_order(tmp_path: Path) -> None:
    lines = numbered(0, 5000, 500)
    longest = b'{"node":"r1","time":"1","secctx":"%b"}\n' % (b"x" * 262_000)
    with jetstream(tmp_path) as its:
        assert "5001 lines stored" in its.publish([*lines, longest])
        assert its.stored() == [*lines, longest]
        assert its.stored("r1") == [*(line for line in lines if line.startswith(b'{"node":"r1",')), longest]
        assert its.stored("nobody") == []


def test_a_file_may_be_published_too(tmp_path: Path) -> None:
    lines = numbered(0, 200, 7)
    (tmp_path / "stream.json").write_bytes(b"".join(lines))
    with jetstream(tmp_path) as its, open(tmp_path / "stream.json", "rb") as file:
        subprocess.run(its.argv("publish.py"), stdin=file, stderr=subprocess.PIPE, timeout=60, check=True)
        assert its.stored() == lines


def test_a_server_that_is_killed_and_started_again_in_mid_stream(tmp_path: Path) -> None:
    """Nothing is lost and nothing is there twice."""
    first, second = numbered(0, 3000, 10), numbered(3000, 6000, 10)
    with jetstream(tmp_path) as its, its.publisher() as running:
        assert running.stdin is not None
        assert running.stderr is not None
        running.stdin.write(b"".join(first))
        running.stdin.flush()
        wait_for(lambda: sum(path.stat().st_size for path in tmp_path.rglob("*.blk")) > 100_000)
        its.server.stop(signal.SIGKILL)
        its.server.start()
        running.stdin.write(b"".join(second))
        running.stdin.close()
        assert running.wait(3 * PATIENCE) == 0
        assert b"6000 lines stored" in running.stderr.read()
        stored = its.stored()
    assert len(stored) == 6000
    assert set(stored) == {*first, *second}
