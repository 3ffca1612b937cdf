"""Metrics as Prometheus sees them: promtool, node_exporter and Prometheus themselves, of a real router's table.

The programs listen on the loopback of a network namespace that has no other link.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from urllib.parse import quote

import pytest

from addresses import Context, Place
from flows import FlowTable
from intake import Facts, Status
from metrics import METRICS, PREFIX, KernelCounters, Measured, Stage, Tally, exposition
from parse import split_lines
from source import parse_statistics
from support.exposition import samples, values
from support.kernel import Lab, Namespace, insert, kernel_mark, load
from support.kernel import missing as missing_kernel
from support.program import OnScreen, Piped, environment, inside
from support.tables import line
from support.terminal import PROGRAM, ROOT
from support.waiting import PATIENCE, wait_for

RULES = ROOT / "contrib" / "prometheus" / "conntrack-monitor.rules.yml"
CONFIG = ROOT / "contrib" / "prometheus" / "prometheus.yml"


def needs(*programs: str, kernel: bool = False) -> pytest.MarkDecorator:
    """Skips where they are not installed, but fails in CI."""
    absent = [program for program in programs if shutil.which(program) is None]
    reason = (missing_kernel() if kernel else "") or (f"not installed: {', '.join(absent)}" if absent else "")
    return pytest.mark.skipif(bool(reason) and os.environ.get("CI") != "true", reason=reason or "no reason")


def has_no_remark(text: str) -> None:
    """Of `promtool check metrics`."""
    argv = ["promtool", "check", "metrics"]
    done = subprocess.run(argv, input=text, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), text


# --- promtool ---------------------------------------------------------------------------------------------------------


@needs("promtool")
def test_promtool_has_remarks() -> None:
    """Or the tests here could not fail."""
    for text in ("# TYPE a counter\na 1\n", 'a{b="1} 2\n', "a 1\na 1\n"):
        with pytest.raises(AssertionError):
            has_no_remark(text)


def large_table(flows: int = 262_144, hosts: int = 50_000) -> FlowTable:
    """A masquerading router's: a fifth IPv6, a tenth of the others forwarded, a fifth has moved since the last listing."""
    table = FlowTable(own=frozenset({"203.0.113.1"}))
    table.watch(1.0)
    for now in (0, 1):
        table.begin_listing(10.0 * now)
        for begin in range(0, flows, 8192):
            texts = (large_line(number, hosts, now) for number in range(begin, min(begin + 8192, flows)))
            rows, rejects = split_lines("".join(texts).encode())
            assert rejects == []
            table.listed_all(rows, 10.0 * now)
        table.end_listing(True, 10.0 * now + 1)
    return table


def large_line(number: int, hosts: int, now: int) -> str:
    host, remote, size = number % hosts, number * 7 % 60_000, 500 + number % 1000 + 5000 * now * (number % 5 == 0)
    tcp = number % 3 > 0
    head = f"tcp      6 {300 + number % 600} ESTABLISHED" if tcp else f"udp      17 {100 + number % 80}"
    sport, dport = 1024 + number % 60_000, (443, 80, 53, 123)[number % 4] + number // 60_000
    near = f"10.{host // 62_500}.{host // 250 % 250}.{host % 250 + 1}"
    far = f"{20 + remote % 40}.{remote // 40 % 250}.{remote // 10_000}.{remote % 250 + 1}"
    port = 1024 + number * 7 % 64_000
    there, back = (
        f"src={near} dst={far} sport={sport} dport={dport}",
        f"src={far} dst=203.0.113.1 sport={dport} dport={port}",
    )
    if number % 5 == 1:
        near, far = f"fd00:1::{host:x}", f"2a0{remote % 16:x}:{remote:x}::{number % 250 + 1:x}"
        there, back = (
            f"src={near} dst={far} sport={sport} dport={dport}",
            f"src={far} dst={near} sport={dport} dport={sport}",
        )
    elif number % 10 == 3:
        there = f"src={far} dst=203.0.113.1 sport={sport} dport={dport}"
        back = f"src={near} dst={far} sport={dport + 8000} dport={sport}"
    family = "ipv6     10" if ":" in near else "ipv4     2"
    return (
        f"{family} {head} {there} packets=9 bytes={size} {back} packets=8 bytes={2 * size} [ASSURED] mark=0 use=1 "
        f"id={number}\n"
    )


@needs("promtool")
def test_a_full_table_of_50_000_hosts_has_few_series() -> None:
    flows = 262_144
    table, status, counters = large_table(flows), Status(), KernelCounters()
    assert len(table) == flows
    status.take(Facts(20.0, {"count": flows, "max": flows, "buckets": 65_536, "acct": 1, "events": 1}))
    context = Context(own=table.own)
    tally = Tally(context, lambda address: Place(f"{chr(65 + hash(address) % 26)}{chr(65 + len(address))}"))
    while not tally.step(table, 20.0, 1000):
        pass
    measured = Measured(
        "r7",
        "1",
        Stage.READING,
        table,
        status,
        tally.newest,
        counters.values,
        20.0,
        0,
        {f"rule {number}": number for number in range(50)},
    )
    text = exposition(measured)
    has_no_remark(text)
    assert 50 < len(samples(text)) < 500
    found = values(text)
    by_nat = [found[f'nat_flows nat="{kind}"'] for kind in ("none", "snat", "dnat", "both")]
    forwarded = sum(number % 10 == 3 for number in range(flows))
    plain = sum(number % 5 == 1 for number in range(flows))
    assert by_nat == [plain, flows - plain - forwarded, forwarded, 0]
    of_countries = sum(number for name, number in found.items() if name.startswith("country_flows"))
    assert found["entries"] == of_countries == flows
    busiest = [number for name, number in found.items() if name.startswith("host_bytes_per_second")]
    assert len(busiest) == 20
    assert max(busiest) > 0
    moved = sum(5000 for number in range(0, flows, 5))
    assert found['bytes_total direction="in"'] + found['bytes_total direction="out"'] == 3 * moved


@needs("promtool")
@pytest.mark.parametrize(
    "name", ['a"b', "a\\b", "a\nb", "a\r\nb", '\\"\n', "\x00\x1b[2J", "ünï漢", "\udcff", "{}=,# HELP", ""]
)
def test_a_node_may_have_any_name(name: str) -> None:
    has_no_remark(
        exposition(Measured(name, name, Stage.READING, FlowTable(), Status(), None, {name: 1}, 1.0, 0, {name: 1}))
    )


# --- a router's table -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab() as made:
        yield made


def counted_there(namespace: Namespace, name: str) -> int:
    return int(namespace.run(["cat", f"/proc/sys/net/netfilter/nf_conntrack_{name}"]).stdout)


def kernel_counters(namespace: Namespace) -> dict[str, int]:
    return parse_statistics(namespace.run(["conntrack", "-S"]).stdout)


QUICK = "import run; run.METRICS_EVERY = 0.5"


def quickly(namespace: Namespace | None = None) -> list[str]:
    """The program, maybe in a namespace; it renews its file every half second."""
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); {QUICK}; sys.argv[0] = {str(ROOT / 'conntrack_monitor.py')!r}"
    )
    return [
        *(inside(namespace)[: -len(PROGRAM)] if namespace is not None else ()),
        sys.executable,
        "-c",
        f"{code}; import conntrack_monitor; conntrack_monitor.main()",
    ]


@contextmanager
def measuring(
    tmp_path: Path, namespace: Namespace, *args: object, mode: Sequence[str] = ("--headless",)
) -> Iterator[tuple[Piped, Path]]:
    """The program, from when it has written its file on."""
    path = tmp_path / "conntrack.prom"
    words = ("--no-config", "--interval", "0.2", "--metrics", path, *args)
    with Piped(tmp_path, *words, program=quickly(namespace), mode=mode) as running:
        running.wait(path.exists)
        yield running, path


def wait_values(running: Piped, path: Path, holds: Callable[[dict[str, float]], object]) -> dict[str, float]:
    running.wait(lambda: holds(values(path.read_text())))
    return values(path.read_text())


def is_renewed(path: Path, before: str) -> bool:
    return path.read_text() != before


def of_each_node(text: str, family: str) -> dict[str, float]:
    """The values of a family of one series, by node."""
    return {
        its[1]: float(its[2])
        for its in re.finditer(rf'^conntrack_monitor_{family}\{{node="(.*)"\}} (\S+)$', text, re.M)
    }


@needs("promtool", kernel=True)
@pytest.mark.parametrize("mode", ["--headless", "--json"])
def test_a_file_of_three_routers_is_the_kernels(tmp_path: Path, mode: str) -> None:
    """One comes late, and goes again: it is down then, and its numbers are left out; the others' go on."""
    path = tmp_path / "conntrack.prom"
    with Namespace("a") as a, Namespace("b") as b, Namespace("late") as late:
        for number, namespace in ((10, a), (20, b)):
            load(namespace, routed(number))
        late.delete()
        ways = [word for name, its in (("r1", a), ("r2", b), ("r3", late)) for word in ("--via", f"{name}={its.via}")]
        words = ("--no-config", "--interval", "0.2", "--metrics", path, *ways)
        with Piped(tmp_path, *words, program=quickly(), mode=(mode,)) as running:

            def told(family: str, *numbers: float) -> bool:
                there = of_each_node(path.read_text(), family) if path.exists() else {}
                return there == {f"r{node}": number for node, number in enumerate(numbers, 1)}

            running.wait(f"r3: there is no network namespace '{late.name}'")
            late.create()
            load(late, routed(30))
            running.wait(lambda: told("up", 1, 1, 1) and told("entries", 10, 20, 30))
            running.wait(lambda: path.read_text().count('nat="snat"} ') == 3)
            has_no_remark(path.read_text())
            insert(b, src="10.0.0.1", dst="192.0.2.9", sport=5, dport=80)
            running.wait(lambda: told("entries", 10, 21, 30))
            late.delete()
            running.wait(lambda: told("up", 1, 1, 0) and told("entries", 10, 21))
            assert of_each_node(path.read_text(), "data_age_seconds")["r3"] > 0
            running.leave()
        assert told("up", 0, 0, 0)
        has_no_remark(path.read_text())


def routed(count: int) -> list[str]:
    """So many flows of a router that masquerades."""
    return [
        f"-A -t 9000 -u SEEN_REPLY,ASSURED -s 10.0.0.{i + 1} -d 198.51.100.7 -r 198.51.100.7 -q 203.0.113.1 -p tcp "
        f"--sport {i + 1} --dport 443 --reply-port-src 443 --reply-port-dst {i + 1} --state ESTABLISHED"
        for i in range(count)
    ]


@needs("promtool", kernel=True)
def test_values_are_the_kernel_s(tmp_path: Path, lab: Lab) -> None:
    """Entries, limit and counters of `conntrack -S`; flows by NAT and protocol; and bytes, to the last one."""
    with (
        measuring(tmp_path, lab.router) as (running, path),
        lab.echo_server(7),
        lab.echo_server(80, Lab.CLIENT, lab.client),
    ):
        wait_values(running, path, lambda found: found.get("listening") == 1)
        already = values(path.read_text())
        lab.udp_exchange(7, flows=2, rounds=3)
        lab.ping(count=3)
        with (
            lab.tcp_connect(7) as kept,
            lab.tcp_connect(7) as closed,
            lab.tcp_connect(8080, Lab.WAN, lab.server) as forwarded,
        ):
            for connection, size in ((kept, 20_000), (closed, 500), (forwarded, 1000)):
                connection.exchange(size)
            closed.reset()  # gone from the table within seconds: its last bytes are in its DESTROY
            kept.exchange(1234)
            lab.router.run(["conntrack", "-D", "-p", "udp"])

            def settled() -> bool:
                found, there = values(path.read_text()), lab.table()
                return (
                    found["entries"] == len(there) == sum(n for name, n in found.items() if name.startswith("flows "))
                )

            running.wait(settled)
            kept.exchange(777)
            found = wait_values(running, path, lambda found: found['bytes_total direction="in"'] >= 22_000)
            assert found["entries"] == counted_there(lab.router, "count")
            assert found["limit"] == counted_there(lab.router, "max")
            assert found['nat_flows nat="dnat"'] == 1
            assert found['nat_flows nat="snat"'] >= 2
            assert found['flows protocol="icmp",state="none"'] == 1
            there = {
                f'statistics_total counter="{name}"': number for name, number in kernel_counters(lab.router).items()
            }
            wait_values(running, path, lambda found: there.items() <= found.items())
            assert (found["up"], found["listening"], found["losses_total"], found["rejected_lines_total"]) == (
                1,
                1,
                0,
                0,
            )
        lab.router.run(["conntrack", "-D", "-p", "tcp"])
        lab.router.run(["conntrack", "-D", "-p", "icmp"])
        found = wait_values(running, path, lambda found: found["entries"] == 0)
        assert found['events_total event="destroy"'] - already['events_total event="destroy"'] >= 6
        has_no_remark(path.read_text())
        running.leave()
    assert samples(path.read_text()) == [
        f'build_info{{node="{os.uname().nodename}",version="0.1.0"}} 1',
        f'up{{node="{os.uname().nodename}"}} 0',
    ]
    assert re.fullmatch(r"conntrack-monitor: no GeoIP database; try: .*\n", running.words())


@needs(kernel=True)
def test_bytes_are_counted_to_the_last_one(tmp_path: Path, lab: Lab) -> None:
    """Of flows that begin, move and end while the program looks: each DESTROY has the kernel's own total."""
    lab.router.run(["conntrack", "-F"])
    events = lab.router.popen(["conntrack", "-E", "-e", "DESTROY", "-o", "id"])
    with measuring(tmp_path, lab.router) as (running, path), lab.echo_server(7):
        wait_values(running, path, lambda found: found.get("listening") == 1)
        for size in (100, 5000, 40_000):
            with lab.tcp_connect(7) as connection:
                connection.exchange(size)
                connection.close()
        lab.udp_exchange(7, flows=5, rounds=4)
        with lab.tcp_connect(7) as connection:
            for _ in range(4):  # listed in between
                before = path.read_text()
                running.wait(partial(is_renewed, path, before))
                connection.exchange(3000)
            connection.reset()
        wait_values(running, path, lambda found: found['bytes_total direction="in"'] > 57_000)
        lab.router.run(["conntrack", "-D"])
        found = wait_values(running, path, lambda found: found["entries"] == 0)
        running.wait(lambda: values(path.read_text())['events_total event="destroy"'] >= 9)
        found = values(path.read_text())
        running.leave()
    events.terminate()
    assert events.stdout is not None
    ended = re.findall(r"bytes=(\d+).* bytes=(\d+)", events.stdout.read().decode())
    assert len(ended) == 9
    assert found['bytes_total direction="out"'] == sum(int(sent) for sent, _ in ended)
    assert found['bytes_total direction="in"'] == sum(int(answered) for _, answered in ended)


def masquerade(lab: Lab, near: str, port: int) -> None:
    """A flow that is translated, and that nobody answers."""
    ends = {"src": near, "dst": Lab.SERVER, "sport": 5, "dport": 9, "src_nat": f"{Lab.WAN}:{port}"}
    insert(lab.router, protocol="udp", **ends, timeout=500)


# --- every way to run -------------------------------------------------------------------------------------------------


@needs("promtool", kernel=True)
def test_once_prints_metrics_in_place_of_the_table(tmp_path: Path, lab: Lab) -> None:
    masquerade(lab, "10.99.1.77", 55)
    argv = [*inside(lab.router), "--no-config", "--once", "--metrics"]
    env = {**os.environ, **environment(tmp_path)}
    done = subprocess.run([*argv, "-"], env=env, capture_output=True, text=True, timeout=60, check=True)
    has_no_remark(done.stdout)
    found = values(done.stdout)
    assert found["entries"] == counted_there(lab.router, "count") >= 1
    assert found['host_flows near="10.99.1.77"'] == 1
    assert found['statistics_total counter="insert"'] == kernel_counters(lab.router)["insert"]
    unknown = {"listening", "behind_seconds", 'bytes_total direction="in"', 'events_total event="new"'}
    assert not found.keys() & unknown  # of a single listing
    twice = [*argv[:-1], "--sample", "0.3", "--metrics", "-"]
    done = subprocess.run(twice, env=env, capture_output=True, text=True, timeout=60, check=True)
    assert (
        values(done.stdout).items()
        >= {
            'bytes_total direction="in"': 0,
            'host_bytes_per_second near="10.99.1.77",direction="in"': 0,
        }.items()
    )
    path = tmp_path / "once.prom"
    done = subprocess.run([*argv, str(path)], env=env, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == ""
    assert values(path.read_text())["up"] == 1
    done = subprocess.run([*argv, "/nowhere/x"], env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stderr.endswith(
        "metrics are not being written: No such file or directory: /nowhere/x; try: mkdir -p /nowhere\n"
    )
    lab.router.run(["conntrack", "-D", "-s", "10.99.1.77"])


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ("--json --metrics -", "--metrics - requires --once; without it, name a file."),
        ("--headless --metrics -", "--metrics - requires --once; without it, name a file."),
        ("--headless", "--headless requires --log DIR, --metrics FILE, --record FILE, --ipfix"),
        ("--json --replay /dev/null --metrics x.prom", "with --replay it requires --once."),
        ("--once --metrics - --json", "it can't be combined with --json, --csv, --by, --view, --limit, -f or -s."),
        ("--once --metrics - -f port:1", "is about the whole table and does not print it"),
        ("--once --metrics - --view usage", "is about the whole table and does not print it"),
    ],
)
def test_what_can_t_be_meant_is_refused(words: str, why: str, tmp_path: Path) -> None:
    argv = [*PROGRAM, "--no-config", *words.split()]
    done = subprocess.run(
        argv, cwd=tmp_path, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert why in done.stderr
    assert not (tmp_path / "x.prom").exists()


@pytest.mark.parametrize("words", ["--once --json", "--once"])
def test_a_file_in_the_environment_is_not_written_by_who_only_looks(words: str, tmp_path: Path) -> None:
    path = tmp_path / "c.prom"
    env = {**os.environ, **environment(tmp_path), "CONNTRACK_MONITOR_METRICS": str(path)}
    argv = [*PROGRAM, "--no-config", *words.split(), "--replay", str(ROOT / "fixtures/demo.rec")]
    done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=60, check=True)
    assert "conntrack_monitor_" not in done.stdout
    assert done.stdout
    assert not path.exists()


def test_countries_of_a_recording(tmp_path: Path) -> None:
    make_mmdb = pytest.importorskip("support.mmdb", reason="needs mmdb-writer and netaddr")
    shelf = make_mmdb.make(tmp_path / "shelf", "dbip-city-lite.mmdb")
    recording = tmp_path / "a.rec"
    recording.write_text(
        "".join(line(number, dst=dst) for number, dst in enumerate(("8.8.8.8", "8.8.4.4", "10.0.0.9"), 1))
    )
    argv = [*PROGRAM, "--no-config", "--no-download", "--geoip-db", str(shelf), "--once", "--metrics", "-"]
    done = subprocess.run([*argv, "--replay", str(recording)], capture_output=True, text=True, timeout=60, check=True)
    found = {name: number for name, number in values(done.stdout).items() if name.startswith("country_flows")}
    assert found == {'country_flows country="US"': 2, 'country_flows country="unknown"': 1}


@needs("promtool", kernel=True)
def test_beside_a_stream(tmp_path: Path, lab: Lab) -> None:
    with measuring(tmp_path, lab.router, mode=("--json",)) as (running, path), lab.echo_server(7):
        wait_values(running, path, lambda found: found.get("listening") == 1)
        lab.udp_exchange(7, flows=3)
        wait_values(running, path, lambda found: found.get('events_total event="new"', 0) >= 3)
        wait_values(running, path, lambda found: found.get('bytes_total direction="in"', 0) > 0)
        has_no_remark(path.read_text())
        running.leave()
    assert values(path.read_text())["up"] == 0


@needs("promtool", kernel=True)
def test_beside_the_screen_whose_panel_says_how_it_is_doing(tmp_path: Path, lab: Lab) -> None:
    folder = tmp_path / "metrics"
    path = folder / "c.prom"
    words = ("--no-config", "--metrics", path)
    with OnScreen(tmp_path, *words, size=(160, 50), program=quickly(lab.router)) as screen:
        screen.wait("Connections")
        screen.wait("metrics are not being written: No such file or directory")
        folder.mkdir()
        wait_for(path.exists, "the file", screen)
        screen.type("H")
        screen.wait(" s ago; it could not be written ")
        has_no_remark(path.read_text())
        screen.leave()
    assert values(path.read_text())["up"] == 0


@kernel_mark()
def test_headless_says_what_is_in_the_way_and_goes_on(tmp_path: Path, lab: Lab) -> None:
    path = tmp_path / "later" / "c.prom"
    with Piped(
        tmp_path, "--no-config", "--metrics", path, program=quickly(lab.router), mode=("--headless",)
    ) as running:
        running.wait("metrics are not being written: No such file or directory")
        assert f"; try: mkdir -p {path.parent}" in running.words()
        path.parent.mkdir()
        running.wait(path.exists)
        assert values(path.read_text())["write_failures_total"] >= 1
        running.leave()
    assert running.words().count("metrics are not") == 1


@kernel_mark()
def test_a_program_that_is_killed_leaves_a_whole_file(tmp_path: Path, lab: Lab) -> None:
    with measuring(tmp_path, lab.router) as (running, path):
        running.process.kill()
        running.process.wait(PATIENCE)
        assert values(path.read_text())["up"] == 1  # nobody could write that it ended: the file gets old


# --- node_exporter and Prometheus -------------------------------------------------------------------------------------

GET = "import sys, urllib.request as r; print(r.build_opener(r.ProxyHandler({})).open(sys.argv[1], timeout=9).read().decode())"


def fetched(namespace: Namespace, url: str) -> str:
    """What a server in the namespace answers; "" while there is none."""
    return namespace.run([sys.executable, "-I", "-S", "-c", GET, url], check=False).stdout


def numbers(namespace: Namespace, query: str) -> list[float]:
    """What Prometheus says to a query: the value of each series."""
    text = fetched(namespace, f"http://127.0.0.1:9090/api/v1/query?query={quote(query)}")
    return [float(its["value"][1]) for its in json.loads(text)["data"]["result"]] if text else []


@needs("promtool", "prometheus", "prometheus-node-exporter", kernel=True)
def test_prometheus_has_what_the_kernel_has(tmp_path: Path, lab: Lab) -> None:
    """The whole way: kernel, program, node_exporter's textfile collector, Prometheus with the recipe's rules."""
    shelf, data = tmp_path / "shelf", tmp_path / "data"
    for folder in (shelf, data):
        folder.mkdir()
    shutil.copy(RULES, tmp_path)
    config = CONFIG.read_text().replace("15s", "1s")
    (tmp_path / "prometheus.yml").write_text(config)
    masquerade(lab, "10.99.1.78", 56)
    exporter = [
        *("prometheus-node-exporter", "--web.listen-address=127.0.0.1:9100", "--collector.disable-defaults"),
        *("--collector.textfile", f"--collector.textfile.directory={shelf}"),
    ]
    prometheus = [
        *("prometheus", "--web.listen-address=127.0.0.1:9090", f"--config.file={tmp_path / 'prometheus.yml'}"),
        *(f"--storage.tsdb.path={data}", "--log.level=error"),
    ]
    with Namespace("prom") as loopback, measuring(shelf, lab.router) as (running, path):
        for argv in (exporter, prometheus):
            loopback.popen(argv, stderr=subprocess.DEVNULL)
        running.wait(lambda: "conntrack_monitor_entries" in fetched(loopback, "http://127.0.0.1:9100/metrics"))
        exported = fetched(loopback, "http://127.0.0.1:9100/metrics")
        assert "node_textfile_scrape_error 0" in exported
        assert f'node_textfile_mtime_seconds{{file="{path}"}}' in exported
        running.wait(lambda: numbers(loopback, "conntrack_monitor_entries") == [counted_there(lab.router, "count")])
        ratio = "conntrack_monitor:fill:ratio"
        running.wait(lambda: numbers(loopback, ratio))
        assert numbers(loopback, f"{ratio} * conntrack_monitor_limit") == numbers(loopback, "conntrack_monitor_entries")
        groups = json.loads(fetched(loopback, "http://127.0.0.1:9090/api/v1/rules"))["data"]["groups"]
        assert {rule["health"] for group in groups for rule in group["rules"]} == {"ok"}
        (series,) = numbers(loopback, f'count({{__name__=~"{PREFIX}.+"}})')
        assert 30 < series < 500
        running.leave()
        wait_for(
            lambda: (
                numbers(loopback, "conntrack_monitor_up") == [0] and not numbers(loopback, "conntrack_monitor_entries")
            ),
            lambda: numbers(loopback, "conntrack_monitor_up"),
        )
    lab.router.run(["conntrack", "-D", "-s", "10.99.1.78"])


# --- the recipe -------------------------------------------------------------------------------------------------------


def promtool(*words: object) -> str:
    done = subprocess.run(["promtool", *map(str, words)], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@needs("promtool")
def test_promtool_accepts_the_recipe() -> None:
    assert re.search(r"SUCCESS: \d+ rules found", promtool("check", "rules", RULES))
    assert "SUCCESS" in promtool("check", "config", CONFIG)


def test_rules_ask_for_metrics_that_there_are() -> None:
    text = RULES.read_text()
    asked_for = set(re.findall(rf"\b{PREFIX}(\w+)\b(?!:)", text))
    assert asked_for <= {family.name for family in METRICS}
    assert len(asked_for) >= 5
    labels = {family.name: {"node", *family.labels} for family in METRICS}
    for name, matcher in re.findall(rf"{PREFIX}(\w+)\{{(\w+)", text):
        assert matcher in labels[name]


# A minute's worth for each alert: what is measured, when it is looked at, and whether it is on then.
ALERTS = [
    ("ConntrackTableNearlyFull", {"entries": "850+0x10", "limit": "1000+0x10"}, "2m", True),
    ("ConntrackTableNearlyFull", {"entries": "790+0x10", "limit": "1000+0x10"}, "2m", False),
    ("ConntrackTableFull", {"entries": "951+0x10", "limit": "1000+0x10"}, "1m", True),
    ("ConntrackFullSoon", {"entries": "500+2x60", "limit": "1000+0x60"}, "60m", True),
    ("ConntrackFullSoon", {"entries": "600+0x60", "limit": "1000+0x60"}, "60m", False),
    ("ConntrackDrops", {'statistics_total{counter="early_drop"}': "7+1x10"}, "6m", True),
    ("ConntrackDrops", {'statistics_total{counter="invalid"}': "7+1x10"}, "6m", False),
    ("ConntrackMonitorDown", {"up": "0+0x10"}, "3m", True),
    ("ConntrackMonitorDown", {"up": "1+0x10"}, "3m", False),
    ("ConntrackMonitorGone", {"up": "1+0x5 _x30"}, "18m", True),
    ("ConntrackMonitorGone", {"up": "0+0x40"}, "18m", False),
    ("ConntrackMonitorLosesEvents", {"losses_total": "0+1x20"}, "12m", True),
]


@needs("promtool")
@pytest.mark.parametrize(("alert", "series", "at", "fires"), ALERTS)
def test_an_alert_fires_when_it_should(
    alert: str, series: dict[str, str], at: str, fires: bool, tmp_path: Path
) -> None:
    """By `promtool test rules`, which says that a wanted alert is missing; so an unwanted one is wanted to fail."""
    given = [{"series": PREFIX + name, "values": numbers} for name, numbers in series.items()]
    empty = {"eval_time": at, "alertname": alert, "exp_alerts": []}
    test = {
        "rule_files": [str(RULES)],
        "tests": [{"interval": "1m", "input_series": given, "alert_rule_test": [empty]}],
    }
    path = tmp_path / "test.json"  # which is YAML
    path.write_text(json.dumps(test))
    done = subprocess.run(["promtool", "test", "rules", path], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode != 0) == fires, done.stdout + done.stderr
    assert not fires or f"alertname: {alert}" in done.stdout + done.stderr or alert in done.stdout + done.stderr


def test_every_alert_is_tried() -> None:
    assert set(re.findall(r"alert: (\w+)", RULES.read_text())) - {alert for alert, *_ in ALERTS} == {
        "ConntrackMonitorStale"
    }
