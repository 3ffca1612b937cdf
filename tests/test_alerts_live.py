"""Alerts of the running program, with a kernel under it: said, and their commands run, missing, failing, hanging."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from support.kernel import Lab, Namespace, insert, insert_arguments, kernel_mark, listeners, load
from support.program import FakeConntrack, OnScreen, Piped, changed, cpu_used, inside, no_orphans, processes
from support.tables import event, line
from support.terminal import PROGRAM
from support.waiting import wait_for
from test_alerts import GUIDE, settings
from test_config import NOBODY, needs_toml

pytestmark = kernel_mark()

SILENT = {"protocol": "udp", "timeout": 600}


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab() as made:
        yield made


@pytest.fixture
def router() -> Iterator[Namespace]:
    with Namespace("al") as made:
        yield made


class Notes:
    """A script that adds its arguments to a file, a line for each run: what the rules of a test run."""

    def __init__(self, folder: Path, then: str = "") -> None:
        self.script, self._file = folder / f"note{len(then)}", folder / "notes"
        self.script.write_text(f'#!/bin/sh\nprintf "%s|" "$@" >> {self._file}; echo >> {self._file}\n{then}\n')
        self.script.chmod(0o755)

    def lines(self) -> list[str]:
        return self._file.read_text().splitlines() if self._file.exists() else []

    def clear(self, word: str) -> None:
        """Lines that begin with a word go."""
        self._file.write_text("".join(text + "\n" for text in self.lines() if not text.startswith(word)))

    def run(self, *words: str) -> str:
        """The line of the settings."""
        return f"run = {json.dumps([str(self.script), *words])}\n"


def rule(name: str, when: str, more: str = "") -> str:
    return f"[[alert]]\nname = {json.dumps(name)}\nwhen = {json.dumps(when)}\n{more}"


def started(
    folder: Path, ns: Namespace, rules: str, *args: object, mode: Sequence[str] = ("--headless",), **more: Any
) -> Piped:
    env = {"XDG_CONFIG_HOME": settings(folder, rules)["XDG_CONFIG_HOME"], **more.pop("env", {})}
    return Piped(folder, *args, program=more.pop("program", inside(ns)), mode=mode, env=env)


def is_listening(ns: Namespace) -> Callable[[], object]:
    return lambda: listeners(ns) > 0


def watches(running: Piped, ns: Namespace, notes: Notes) -> None:
    """Wait until new flows are judged: one after the other begins until a rule named ready has said so."""
    running.wait(is_listening(ns))
    ports = iter(range(1, 2000))

    def is_ready() -> bool:
        insert(ns, **SILENT, src="10.99.9.9", dst="10.99.9.8", sport=next(ports), dport=9)
        return any(text.startswith("ready|") for text in notes.lines())

    running.wait(is_ready)


def ready(notes: Notes) -> str:
    return rule("ready", "dport:9 src:10.99.9.9", 'every = "1h"\n' + notes.run("{name}"))


# --- the four that were promised --------------------------------------------------------------------------------------


@needs_toml
def test_a_country_that_was_never_seen_behind_a_router(tmp_path: Path, lab: Lab) -> None:
    """Behind a NAT router, by a database: not the country of a flow that was there, and the new one once."""
    mmdb = pytest.importorskip("support.mmdb", reason="needs mmdb-writer and netaddr")
    bases = mmdb.make(tmp_path / "bases", "dbip-city-lite.mmdb")
    notes = Notes(tmp_path)
    rules = ready(notes) + rule("new country", "new:country", notes.run("{name}", "{country}", "{src}", "{value}"))
    with lab.echo_server(7):
        lab.udp_exchange(7)  # 203.0.113.2 is in Germany, by the database
        with started(tmp_path, lab.router, rules, env={"GEOIP_DB_PATHS": str(bases)}) as running:
            watches(running, lab.router, notes)
            lab.udp_exchange(7, flows=3)
            lab.udp_unanswered(53, flows=3)  # 198.51.100.9 is in France
            running.wait(lambda: "new country|FR|10.99.1.2|FR|" in notes.lines())
            running.wait("alert new country: udp 10.99.1.2:")
            lab.udp_unanswered(5353, flows=2)
            insert(lab.router, **SILENT, src="10.99.1.2", dst="8.8.8.8", sport=5, dport=53)
            running.wait(lambda: "new country|US|10.99.1.2|US|" in notes.lines())
            running.leave()
    assert [text for text in notes.lines() if text.startswith("new country")] == [
        "new country|FR|10.99.1.2|FR|",
        "new country|US|10.99.1.2|US|",
    ]


@needs_toml
def test_a_table_that_fills_up(tmp_path: Path, router: Namespace) -> None:
    """And that it is said again when it has emptied and filled up again, not before ``every`` is over."""
    notes = Notes(tmp_path)
    most = int(router.run(["cat", "/proc/sys/net/netfilter/nf_conntrack_max"]).stdout)

    def said(name: str) -> list[str]:
        return [text for text in notes.lines() if text.startswith(name)]

    limit = f"{100 * 25 / most:.7f}%"  # a network namespace has no limit of its own
    often = 'for = "1s"\nevery = "2s"\n'
    rules = ready(notes) + rule("full", f"fill > {limit}", often + notes.run("full", "{value}"))
    rules += rule("empty", f"fill < {limit}", 'every = "1s"\n' + notes.run("empty"))
    with started(tmp_path, router, rules) as running:
        watches(running, router, notes)
        for time in (1, 2):
            words = [
                insert_arguments(**SILENT, src="10.0.0.5", dst="192.0.2.1", sport=n, dport=53) for n in range(1, 41)
            ]
            load(router, ["-I " + " ".join(each) for each in words])
            running.wait(lambda: len(said("full")) == time)  # noqa: B023  it waits here
            router.run(["conntrack", "-D", "-s", "10.0.0.5"])
            running.wait(lambda: len(said("empty")) == 2 or time == 2)  # noqa: B023
        running.leave()
    assert said("full") == ["full|<0.1%|"] * 2
    assert "alert full: fill > " in running.words()


@needs_toml
def test_a_command_that_hangs(tmp_path: Path, router: Namespace) -> None:
    """It is ended though it does not want to; reading, judging and the commands of others go on meanwhile."""
    notes = Notes(tmp_path)
    deaf = Notes(tmp_path, then='trap "" TERM; sleep 600 & wait; sleep 600')
    rules = (
        ready(notes) + rule("hangs", "dport:5555", deaf.run("hangs")) + rule("other", "dport:4444", notes.run("other"))
    )
    program = [*inside(router)[:4], *changed("import alerts; alerts.COMMAND_TIME = 2.0; alerts.GRACE = 0.5")]
    with started(tmp_path, router, rules, program=program) as running:
        watches(running, router, notes)
        insert(router, src="10.0.0.5", dst="192.0.2.1", sport=1, dport=5555)
        running.wait(lambda: "hangs|" in notes.lines())
        insert(router, src="10.0.0.5", dst="192.0.2.1", sport=1, dport=4444)
        running.wait(lambda: "other|" in notes.lines())
        assert "was ended" not in running.words()
        running.wait(f"alert hangs: its command {deaf.script} was ended after 2 s")
        wait_for(
            lambda: len(processes(running.folder)) == 3, lambda: processes(running.folder)
        )  # it and two conntracks
        running.leave()
    no_orphans(running.folder)


@needs_toml
def test_a_command_that_is_missing_and_one_that_fails(tmp_path: Path, router: Namespace) -> None:
    """Each is said once, and the alert all the same."""
    notes = Notes(tmp_path)
    fails = Notes(tmp_path, then="echo first >&2; printf 'no \\033[31msuch luck' >&2; exit 3")
    plain = tmp_path / "not executable"
    plain.write_text("x")
    rules = ready(notes) + rule("missing", "dport:1111", 'run = ["/nonexistent/x", "{text}"]\n')
    rules += rule("fails", "dport:2222", fails.run("fails")) + rule("denied", "dport:3333", f'run = ["{plain}"]\n')
    with started(tmp_path, router, rules, mode=("--json",)) as running:
        watches(running, router, notes)
        for number, port in enumerate((1111, 2222, 3333, 1111, 2222)):
            insert(router, src="10.0.0.5", dst="192.0.2.1", sport=5000 + number, dport=port)
        running.wait("alert missing: its command /nonexistent/x is not found")
        running.wait(f"alert fails: its command {fails.script} exited with status 3: no [31msuch luck")
        running.wait(f"alert denied: its command {plain} can't be run: Permission denied")
        running.wait(lambda: notes.lines().count("fails|") == 2)
        running.leave()
    assert running.words().count("alert missing") == running.words().count("alert fails") == 1
    items = [json.loads(text) for text in running.out.read_text().splitlines()]
    names = [item["alert"] for item in items if item["event"] == "alert"]
    assert sorted(names) == ["denied", "fails", "fails", "missing", "missing", "ready"]


# --- commands ---------------------------------------------------------------------------------------------------------


@needs_toml
def test_a_command_has_no_shell_no_input_and_its_words_as_they_are(tmp_path: Path, router: Namespace) -> None:
    name = '$(touch /tmp/never); `id` "quoted" {x} | & ü'
    notes = Notes(tmp_path, then='cat | wc -c >> "$0.input"; pwd > /dev/null; yes | head -c 3000000')
    rules = ready(notes) + rule(name, "dport:4444", notes.run("{name}", "{dst}:{dport}", "*", '{"a": "{sport}"}'))
    with started(tmp_path, router, rules) as running:
        watches(running, router, notes)
        insert(router, src="10.0.0.5", dst="192.0.2.1", sport=77, dport=4444)
        running.wait(lambda: f'{name}|192.0.2.1:4444|*|{{"a": "77"}}|' in notes.lines())
        counted = Path(f"{notes.script}.input")
        running.wait(lambda: counted.exists() and counted.read_text().split() == ["0", "0"])
        running.leave()
    assert "its command" not in running.words()


@needs_toml
def test_a_flood_of_alerts_starts_few_commands(tmp_path: Path, router: Namespace) -> None:
    """Each of 200 flows fits: 20 alerts a second are said, 4 commands run at once, all flows are read."""
    slow = Notes(tmp_path, then="sleep 30")
    notes = Notes(tmp_path)
    rules = ready(notes) + rule("flood", "dport:53", slow.run("flood"))
    with started(tmp_path, router, rules, mode=("--json",)) as running:
        watches(running, router, notes)
        words = [insert_arguments(**SILENT, src="10.0.0.5", dst="192.0.2.1", sport=n, dport=53) for n in range(1, 201)]
        load(router, ["-I " + " ".join(each) for each in words])
        running.wait(lambda: running.out.read_bytes().count(b'"dport":53') >= 200)
        running.wait(lambda: notes.lines().count("flood|") == 4)
        running.leave()
    assert notes.lines().count("flood|") == 4
    assert "commands of alerts had not ended, and were stopped" in running.words()
    items = [json.loads(text) for text in running.out.read_text().splitlines()]
    flood = [item for item in items if item.get("alert") == "flood"]
    new = [item for item in items if item["event"] == "new" and item["original"].get("dport") == 53]
    assert len(new) == 200
    assert 20 <= len(flood) <= 60
    assert "alert flood: " in running.words()
    assert "more were not said" in running.words()


# --- root -------------------------------------------------------------------------------------------------------------


@needs_toml
@pytest.mark.parametrize("foreign", ["file", "folder", "folder that others write"])
def test_root_runs_nothing_that_others_may_have_written(tmp_path: Path, router: Namespace, foreign: str) -> None:
    """The alert is said, its command is not run, and after the cure that is named it is."""
    notes = Notes(tmp_path)
    rules = rule("a", "dport:4444", notes.run("a"))
    env = {"SUDO_UID": str(NOBODY)} if foreign == "file" else {}
    home = tmp_path / "home"
    home.mkdir()
    path = Path(settings(home, rules)["XDG_CONFIG_HOME"]) / "conntrack-monitor" / "config.toml"
    if foreign == "file":
        os.chown(path, NOBODY, NOBODY)
    elif foreign == "folder":
        os.chown(path.parent, NOBODY, NOBODY)
    else:
        path.parent.chmod(0o775)
    env |= {"XDG_CONFIG_HOME": str(home)}

    def once(sport: int) -> str:
        with Piped(tmp_path, program=inside(router), mode=("--headless",), env=env) as running:
            running.wait(is_listening(router))
            numbers = iter(range(sport, sport + 2000))

            def said() -> bool:
                insert(router, src="10.0.0.5", dst="192.0.2.1", sport=next(numbers), dport=4444)
                return "alert a: tcp 10.0.0.5" in running.words()

            running.wait(said)
            running.wait(lambda: notes.lines() if sport > 5000 else "no command of an alert is run" in running.words())
            running.leave()
            return running.words()

    words = once(1000)
    assert notes.lines() == []
    [cure] = [text.partition("; try: ")[2] for text in words.splitlines() if "no command of an alert" in text]
    assert (
        cure
        == {
            "file": f"chown root:root {path}",
            "folder": f"chown root:root {path.parent}",
            "folder that others write": f"chmod go-w {path.parent}",
        }[foreign]
    )
    subprocess.run(shlex.split(cure), check=True)
    assert "no command of an alert" not in once(6000)


# --- beside the loop --------------------------------------------------------------------------------------------------

ALL_KINDS = "".join(
    rule(when, when)
    for when in ("fill > 80%", "unreplied > 99%", "hosts.remotes > 500", "new:country", "bytes:>1G", "rate_in > 1G")
)


@needs_toml
def test_it_rests_where_nothing_happens(tmp_path: Path, router: Namespace) -> None:
    """Also before the first listing is through, and in a recording that says nothing."""
    for number in range(20):
        insert(router, **SILENT, src="10.0.0.5", dst="192.0.2.1", sport=number + 1, dport=53)
    fake = tmp_path / "fake"
    fake.mkdir()
    slow = FakeConntrack(fake, listing="exec sleep 60")
    slow.breaks()
    folders = [tmp_path / str(number) for number in range(4)]
    for folder in folders:
        folder.mkdir()
    silent = tmp_path / "silent"
    os.mkfifo(silent)
    with (
        open(silent, "r+b", buffering=0),
        started(folders[0], router, ALL_KINDS) as headless,
        started(folders[1], router, ALL_KINDS, mode=("--json",)) as stream,
        started(folders[2], router, ALL_KINDS, mode=("--json",), program=PROGRAM, env=slow.env) as waiting,
        started(folders[3], router, ALL_KINDS, "--replay", silent, mode=("--json",), program=PROGRAM) as recording,
    ):
        stream.wait(lambda: stream.lines() == 20)
        wait_for(lambda: slow.starts("-L"), "a listing")
        used = cpu_used(headless, stream, waiting, recording, seconds=3.0)
        assert max(used) < 0.4, used
        for running in (headless, stream, waiting, recording):
            running.leave()


@needs_toml
def test_events_that_are_lost(tmp_path: Path) -> None:
    lost = "echo 'WARNING: We have hit ENOBUFS! We are losing events.' >&2; exec sleep 60"
    fake, notes = FakeConntrack(tmp_path, events=lost), Notes(tmp_path)
    rules = rule("lost", "lost > 0", notes.run("{name}", "{value}")) + rule("stale", "stale > 1h", notes.run("{name}"))
    with started(tmp_path, Namespace(), rules, mode=("--json",), program=PROGRAM, env=fake.env) as running:
        running.wait(lambda: fake.starts("-E") and running.lines() >= fake.lines)
        fake.breaks()
        running.wait(lambda: notes.lines() == ["lost|1|"])
        running.wait(lambda: b'"event":"alert","alert":"lost","value":1,' in running.out.read_bytes())
        running.leave()


# --- where it shows ---------------------------------------------------------------------------------------------------


@needs_toml
def test_on_the_screen_it_is_a_notice(tmp_path: Path, router: Namespace) -> None:
    notes = Notes(tmp_path)
    rules = rule("telnet", "dport:23", notes.run("{name}")) + rule("missing", "dport:24", 'run = ["/nonexistent/x"]\n')
    env = {"XDG_CONFIG_HOME": settings(tmp_path, rules)["XDG_CONFIG_HOME"]}
    router.sysctl("net.netfilter.nf_conntrack_acct", 1)
    with OnScreen(tmp_path, size=(120, 30), env=env, program=inside(router)) as screen:
        wait_for(is_listening(router), "a listener", screen)
        ports = iter(range(1, 2000))

        def seen() -> bool:
            insert(router, src="10.0.0.5", dst="192.0.2.1", sport=next(ports), dport=23)
            return "! alert telnet: tcp 10.0.0.5:" in screen.text

        wait_for(seen, lambda: screen.text, screen)
        wait_for(lambda: "telnet|" in notes.lines(), lambda: screen.text, screen)
        insert(router, src="10.0.0.5", dst="192.0.2.1", sport=5000, dport=24)
        screen.type("H")
        wait_for(lambda: "is not found" in screen.text, lambda: screen.text, screen)
        screen.leave()


@needs_toml
def test_a_recording_on_the_screen_speaks_up_and_runs_nothing(tmp_path: Path) -> None:
    notes, file = Notes(tmp_path), tmp_path / "day.rec"
    events = [f"[{1000 + at / 2:.6f}]\t{event('NEW', at + 1, dport=23).rstrip()}" for at in range(4)]
    begin = ["# conntrack-monitor recording 1", "# 999.0 list", line(90, dport=23).rstrip(), "# 999.5 end 1"]
    file.write_text("\n".join([*begin, *events, "# 1003.0 facts count=90 max=100"]) + "\n")
    rules = rule("telnet", "dport:23", notes.run("{name}")) + rule("full", "fill > 80%", notes.run("{name}"))
    env = {"XDG_CONFIG_HOME": settings(tmp_path, rules)["XDG_CONFIG_HOME"]}
    with OnScreen(tmp_path, "--replay", file, size=(120, 30), env=env) as screen:
        said = "! alert telnet: tcp 10.0.0.1:10004 to 192.0.2.1:23"  # the newest
        wait_for(lambda: said in screen.text, lambda: screen.text, screen)
        wait_for(lambda: "! alert full: fill > 80%: it is 90%" in screen.text, lambda: screen.text, screen)
        screen.leave()
    assert notes.lines() == []


@needs_toml
def test_on_the_screen_a_country_is_new_by_databases_that_open_beside_the_loop(tmp_path: Path, lab: Lab) -> None:
    mmdb = pytest.importorskip("support.mmdb", reason="needs mmdb-writer and netaddr")
    bases = mmdb.make(tmp_path / "bases", "dbip-city-lite.mmdb")
    rules = rule("country", "new:country")
    env = {"XDG_CONFIG_HOME": settings(tmp_path, rules)["XDG_CONFIG_HOME"], "GEOIP_DB_PATHS": str(bases)}
    insert(lab.router, **SILENT, src=lab.CLIENT, dst="203.0.113.77", sport=1, dport=53)
    with OnScreen(tmp_path, size=(120, 30), env=env, program=inside(lab.router)) as screen:
        wait_for(lambda: "203.0.113.77" in screen.text, lambda: screen.text, screen)
        insert(lab.router, **SILENT, src=lab.CLIENT, dst="203.0.113.78", sport=1, dport=53)
        insert(lab.router, **SILENT, src=lab.CLIENT, dst="198.51.100.9", sport=1, dport=53)
        wait_for(
            lambda: "! alert country: udp 10.99.1.2:1 to 198.51.100.9:53, France" in screen.text,
            lambda: screen.text,
            screen,
        )
        screen.leave()


@needs_toml
def test_what_the_flow_log_has_seen_is_not_new_after_a_restart(tmp_path: Path, lab: Lab) -> None:
    mmdb = pytest.importorskip("support.mmdb", reason="needs mmdb-writer and netaddr")
    bases = mmdb.make(tmp_path / "bases", "dbip-city-lite.mmdb")
    notes, log = Notes(tmp_path), tmp_path / "log"
    rules = ready(notes) + rule("country", "new:country", notes.run("country", "{value}"))
    for dst, said in (("198.51.100.9", ["country|FR|"]), ("8.8.8.8", ["country|FR|", "country|US|"])):
        with started(tmp_path, lab.router, rules, "--log", log, env={"GEOIP_DB_PATHS": str(bases)}) as running:
            watches(running, lab.router, notes)
            insert(lab.router, **SILENT, src=lab.CLIENT, dst="198.51.100.9", sport=1, dport=53)
            insert(lab.router, **SILENT, src=lab.CLIENT, dst=dst, sport=2, dport=53)
            running.wait(lambda: [text for text in notes.lines() if "country" in text] == said)  # noqa: B023
            running.leave()
        lab.router.run(["conntrack", "-F"])
        notes.clear("ready")


@needs_toml
def test_the_rules_of_the_document_speak_up(tmp_path: Path, lab: Lab) -> None:
    """All five, with traffic that each is about. What is large in the document is small here."""
    text = GUIDE.read_text(encoding="utf-8").partition("\n## Five rules\n")[2].partition("\n## ")[0]
    blocks = [block for block in text.split("\n\n") if block.lstrip("\n").startswith("    [[alert]]")]
    assert len(blocks) == 5
    rules = "\n".join(text[4:] for block in blocks for text in block.splitlines())
    most = int(lab.router.run(["cat", "/proc/sys/net/netfilter/nf_conntrack_max"]).stdout)
    for written, here in (
        ("hosts.remotes > 500", "hosts.remotes > 15"),
        ("fill > 80%", f"fill > {100 * 10 / most:.7f}%"),
        ('for = "20s"', 'for = "1s"'),
        ('for = "30s"', 'for = "1s"'),
        ('for = "1m"', 'for = "1s"'),
        ('"notify-send"', '"true"'),
    ):
        assert written in rules
        rules = rules.replace(written, here)
    mmdb = pytest.importorskip("support.mmdb", reason="needs mmdb-writer and netaddr")
    bases = mmdb.make(tmp_path / "bases", "dbip-city-lite.mmdb")
    notes = Notes(tmp_path)
    with started(
        tmp_path, lab.router, ready(notes) + rules, mode=("--json",), env={"GEOIP_DB_PATHS": str(bases)}
    ) as running:
        watches(running, lab.router, notes)
        insert(lab.router, src=lab.SERVER, dst=lab.WAN, sport=4000, dport=22)
        insert(lab.router, src=lab.CLIENT, dst="198.51.100.7", sport=4001, dport=25)
        words = [
            insert_arguments(**SILENT, src=lab.CLIENT, dst=f"192.0.2.{n}", sport=n, dport=53) for n in range(1, 40)
        ]
        load(lab.router, ["-I " + " ".join(each) for each in words])

        def said() -> set[str]:
            items = [json.loads(text) for text in running.out.read_text().splitlines() if '"event":"alert"' in text]
            return {item["alert"] for item in items} - {"ready"}

        five = {"scan", "ssh from a new country", "table nearly full", "mail from inside", "nobody answers"}
        running.wait(lambda: said() == five)
        running.leave()
