"""The container on a real engine: built from nothing, attached to, left, stopped, copied into, installed, removed."""

from __future__ import annotations

import gzip
import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest

from support.debian import run
from support.docker import IMAGE, KEPT, NAME, PLUGIN, ROOT, VOLUMES, Engine, listen_in, missing_engine
from support.http import Server, serving
from support.terminal import PROGRAM, Terminal, Tmux
from support.waiting import wait_for

make_mmdb = pytest.importorskip("support.mmdb", reason="needs mmdb-writer and netaddr")

REASON = missing_engine()
pytestmark = pytest.mark.skipif(bool(REASON) and os.environ.get("CI") != "true", reason=REASON or "no reason")
LEAN = 140_000_000  # bytes
QUIET = {"CONNTRACK_MONITOR_NO_DOWNLOAD": "1"}
PLACE = "/usr/share/GeoIP"
SMALL = 2000  # bytes: less than a frame, more than the signals' own (a byte each)


@pytest.fixture
def up(engine: Engine) -> Iterator[Callable[..., None]]:
    """Starts the service of docker-compose.yml, with what is set in the environment; removed afterwards."""
    engine.namespace.run(["conntrack", "-F"])
    engine.remove()

    def start(**env: str) -> None:
        engine.compose("up", "-d", "--no-build", env={**QUIET, **env})
        wait_for(lambda: "conntrack-monitor" in engine.inside("ls", "/run", check=False), what="the first heartbeat")

    yield start
    engine.remove()


@pytest.fixture
def tmux(engine: Engine, tmp_path: Path) -> Iterator[Tmux]:
    made = Tmux(tmp_path)
    made.environ |= engine.env
    try:
        made.start(100, 24)
        yield made
    finally:
        made.close()


@contextmanager
def attached(engine: Engine, size: tuple[int, int] = (100, 30)) -> Iterator[Terminal]:
    """Somebody who looks with plain docker attach."""
    with Terminal(NAME, size=size, env=engine.env, program=["docker", "attach"]) as terminal:
        terminal.wait("q quit")
        yield terminal


def beat_again(engine: Engine) -> None:
    """Until the loop has gone round again, from now on."""
    engine.inside("touch", "-d", "@1", "/run/conntrack-monitor")
    wait_for(lambda: engine.inside("stat", "-c", "%Y", "/run/conntrack-monitor").strip() != "1", what="a heartbeat")


def host_pid(engine: Engine) -> int:
    return int(engine.inspect("{{.State.Pid}}"))


def takes_signals(engine: Engine) -> bool:
    """Whether SIGTERM is kept (blocked or caught): before the entry point's first call, the kernel drops it for a process 1."""
    try:
        status = Path(f"/proc/{host_pid(engine)}/status").read_text()
    except OSError:  # 0, or gone
        return False
    masks = re.findall(r"^Sig(?:Blk|Cgt):\s+(\w+)$", status, re.M)
    kept = any(int(mask, 16) >> (signal.SIGTERM - 1) & 1 for mask in masks)
    return kept and not status.startswith("Name:\trunc")  # what becomes the entry point catches all, and dies of it


# --- the image ------------------------------------------------------------------------------------


def test_the_image_is_lean_and_says_what_it_is(engine: Engine) -> None:
    (image,) = json.loads(engine.docker("image", "inspect", IMAGE))
    assert image["Size"] <= LEAN
    labels = image["Config"]["Labels"]
    assert {"title", "description", "source", "licenses", "version"} <= {
        name.removeprefix("org.opencontainers.image.") for name, value in labels.items() if value
    }
    assert image["Config"]["Entrypoint"][-3:] == [NAME, "--heartbeat", "/run/conntrack-monitor"]
    assert image["Config"]["Healthcheck"]["Test"][0] == "CMD"
    assert f"{labels['org.opencontainers.image.version']}\n" in engine.docker("run", "--rm", IMAGE, "--version")


def test_the_image_has_conntrack_and_python_and_nothing_of_the_build(engine: Engine) -> None:
    words = "command -v conntrack python3 && ! command -v pip && ! command -v gcc && ! test -e /build && ls /opt/*"
    there = engine.docker("run", "--rm", "--entrypoint", "sh", IMAGE, "-c", words)
    assert "run.py" in there
    assert "test" not in there
    assert "machine-authorities" not in (ROOT / "Dockerfile").read_text()


def test_the_lock_has_the_versions_of_the_requirements() -> None:
    def versions(name: str) -> set[str]:
        return set(re.findall(r"^[\w.-]+==[\w.]+", (ROOT / name).read_text(), re.M))

    assert versions("requirements.txt") < versions("requirements.lock")
    for word in ("--mount", "syntax="):
        assert word not in (ROOT / "Dockerfile").read_text()


@pytest.mark.parametrize("name", ["docs/container.md", "setup-conntrack-monitor.sh"])
def test_the_wrapper_is_named_before_docker_attach(name: str) -> None:
    """Nothing in the container can see a detach: docker attach leaves the alternate screen on and the cursor hidden."""
    text = (ROOT / name).read_text()
    ours, theirs = "conntrack-monitor/conntrack-monitor attach", "docker attach conntrack-monitor"
    assert -1 < text.find(ours) < text.find(theirs)
    for row in (line for line in text.splitlines() if line.startswith("| ") and theirs in line):
        if not row.startswith(f"| `{theirs}`"):  # the row about itself
            assert -1 < row.find(ours) < row.find(theirs), row


def test_an_outsider_reads_nothing_and_is_told_what_helps(engine: Engine) -> None:
    words = ["run", "--rm", "--network", "host", "--cap-drop", "ALL", IMAGE, "--once"]
    said = engine.docker(*words, check=False)
    assert "not permitted: reading the connection table needs root or CAP_NET_ADMIN" in said
    assert "try: docker run --network host --cap-add NET_ADMIN" in said


def test_the_privileged_file_only_adds_that(engine: Engine) -> None:
    both = ["-f", str(ROOT / "docker-compose.privileged.yml"), "config"]
    plain, more = engine.compose("config"), engine.compose(*both)
    assert set(more.splitlines()) - set(plain.splitlines()) == {"    privileged: true"}
    assert set(plain.splitlines()) <= set(more.splitlines())


# --- the service ----------------------------------------------------------------------------------


def test_least_privilege(engine: Engine, up: Callable[..., None]) -> None:
    up()
    status = engine.inside("cat", "/proc/1/status")
    assert re.search(r"^CapEff:\s+0{12}1002$", status, re.M)  # NET_ADMIN, and DAC_OVERRIDE for databases of mode 0600
    assert re.search(r"^CapBnd:\s+0{12}1002$", status, re.M)
    assert re.search(r"^NoNewPrivs:\s+1$", status, re.M)
    assert "Read-only file system" in engine.inside("touch", "/opt/x", check=False)
    host = json.loads(engine.inspect("{{json .HostConfig}}"))
    assert not host["Privileged"]
    assert host["NetworkMode"] == "host"
    assert host["RestartPolicy"]["Name"] == "unless-stopped"
    assert host["LogConfig"] == {"Type": "local", "Config": {"max-file": "2", "max-size": "1m"}}


def test_health_is_the_loop_s_own(engine: Engine, up: Callable[..., None]) -> None:
    up()
    probe = json.loads(engine.inspect("{{json .Config.Healthcheck.Test}}"))[1:]
    ask = ["docker", "exec", NAME, *probe]
    environ = {**os.environ, **engine.env}
    assert subprocess.run(ask, env=environ).returncode == 0
    pid = host_pid(engine)
    os.kill(pid, signal.SIGSTOP)  # a loop that does not go round
    try:
        engine.inside("touch", "-d", "-20 seconds", "/run/conntrack-monitor")
        assert subprocess.run(ask, env=environ).returncode == 1
    finally:
        os.kill(pid, signal.SIGCONT)
    beat_again(engine)
    assert subprocess.run(ask, env=environ).returncode == 0


def whole(shown: str, height: int) -> bool:
    """The header stands in the first line, the footer in the last."""
    lines = shown.removeprefix("\n").rstrip("\n").split("\n")
    there = lines[0].startswith("conntrack-monitor") and "q quit" in lines[-1] and "192.0.2.7" in shown
    return there and len(lines) == height


def test_attach_detach_again_and_again_at_any_size(engine: Engine, up: Callable[..., None], tmux: Tmux) -> None:
    up()
    engine.add_flow("10.1.2.3")
    tmux.run(f"PATH={ROOT}:$PATH")
    for width, height in ((100, 24), (80, 24), (132, 40), (40, 10)):
        tmux.resize(width, height)
        tmux.run("clear; echo before")
        tmux.wait("before\n$", gone=("clear",))
        tmux.run("docker attach conntrack-monitor; printf '\\033[?1006l\\033[?1000l\\033[?1049l\\033[?25h\\033[0m'")
        wait_for(
            lambda lines=height: whole(tmux.screen(), lines),  # type: ignore[misc]
            what=f"a frame of {height} lines",
        )
        assert (tmux.fact("alternate_on"), tmux.fact("mouse_sgr_flag")) == ("1", "1")
        tmux.press("C-p", "C-q")
        tmux.wait("before", "$", gone=("192.0.2.7",))
        assert (tmux.fact("alternate_on"), tmux.fact("cursor_flag")) == ("0", "1")
    assert engine.status() == "running"
    assert engine.inspect("{{.RestartCount}}") == "0"


def test_resizing_and_the_mouse_while_attached(engine: Engine, up: Callable[..., None]) -> None:
    up()
    engine.add_flow("10.1.2.3")
    with attached(engine) as terminal:
        for size in ((60, 12), (120, 40)):
            terminal.resize(*size)
            terminal.wait(lambda: "q quit" in terminal.screen.display[-1] and "10.1.2.3" in terminal.text)
        terminal.click("2Hos")
        terminal.wait("Hosts · 1")
        for _ in range(2):
            terminal.click("10.1.2.3 ")
        terminal.wait("filter near:10.1.2.3")


@pytest.mark.parametrize("init", [False, True], ids=["bare", "init"])
def test_no_key_freezes_it(engine: Engine, up: Callable[..., None], init: bool) -> None:
    if init:
        engine.remove()
        words = ["--network", "host", "--cap-drop", "ALL", "--cap-add", "NET_ADMIN", "--init"]
        engine.docker("run", "-dit", "--name", NAME, *words, "-e", "CONNTRACK_MONITOR_NO_DOWNLOAD=1", IMAGE)
    else:
        up()
    for number, key in enumerate(("\x1a", "\x13", "\x1c")):  # Ctrl+Z, Ctrl+S, Ctrl+Backslash
        with attached(engine) as terminal:
            terminal.type(key)
            terminal.type("\x10\x11")  # away, and whatever the key did stays done
            terminal.end()
        engine.add_flow(f"10.9.9.{number}")
        with attached(engine) as terminal:
            terminal.wait(f"10.9.9.{number}")
    engine.docker("stop", "-t", "5", NAME)
    assert engine.inspect("{{.State.ExitCode}} {{.RestartCount}}") == "0 0"


@pytest.mark.parametrize("key", ["q", "\x03"], ids=["q", "Ctrl+C"])
def test_the_end_is_status_0_and_the_policy_starts_it_again(engine: Engine, up: Callable[..., None], key: str) -> None:
    up()
    with attached(engine) as terminal:
        assert "? help  q quit  ctrl-p ctrl-q detach" in terminal.text
        terminal.type(key)
        assert terminal.end() == 0
        last = terminal.seen.rpartition(b"\x1b[?1049l")[2].decode().strip()
        assert last.endswith("by its restart policy unless-stopped. To stop it: docker stop conntrack-monitor")
    wait_for(lambda: engine.inspect("{{.RestartCount}} {{.State.Status}}") == "1 running", what="the restart")


def test_without_a_policy_q_is_the_end(engine: Engine, up: Callable[..., None]) -> None:
    up(CONNTRACK_MONITOR_RESTART="no")
    with attached(engine) as terminal:
        terminal.type("q")
        assert terminal.end() == 0
        assert terminal.seen.rstrip().endswith(b"\x1b[?1049l")  # nothing is said of a new start
    wait_for(lambda: engine.status() == "exited", what="the end")
    assert engine.inspect("{{.State.ExitCode}} {{.RestartCount}}") == "0 0"


def test_stop_is_the_end_and_a_new_daemon_starts_what_was_not_stopped(engine: Engine, up: Callable[..., None]) -> None:
    up()
    engine.restart()
    wait_for(lambda: engine.status() == "running", what="the container after the daemon's restart")
    beat_again(engine)
    engine.docker("stop", "-t", "2", NAME)  # SIGKILL after 2 seconds would be status 137
    assert engine.inspect("{{.State.ExitCode}} {{.RestartCount}}") == "0 0"
    engine.restart()
    assert engine.status() == "exited"


def test_a_stop_that_comes_before_it_listens_is_not_lost(engine: Engine, up: Callable[..., None]) -> None:
    up()
    for _ in range(3):
        engine.docker("restart", "-t", "5", NAME)
        wait_for(lambda: takes_signals(engine), what="the entry point")  # long before the program listens
    engine.docker("stop", "-t", "5", NAME)  # SIGKILL would be status 137
    assert engine.inspect("{{.State.ExitCode}}") == "0"


def test_nobody_attached_no_log_and_a_true_table_at_once(engine: Engine, up: Callable[..., None], tmux: Tmux) -> None:
    up()
    engine.add_flow("10.1.1.1")
    beat_again(engine)
    assert engine.docker("logs", NAME) == ""
    assert engine.log_size() == 0
    install(engine)
    tmux.run(f"{shlex_home(engine)} attach")
    tmux.wait("10.1.1.1")
    tmux.press("C-p", "C-q")
    tmux.wait("Detached; the monitor keeps running.")
    wait_for(lambda: engine.inside("stty", "-F", "/dev/console", "size") == "0 0\n", what="the terminal of nobody")
    beat_again(engine)
    size = engine.log_size()
    engine.delete_flow("10.1.1.1")
    engine.add_flow("10.2.2.2")
    beat_again(engine)
    assert engine.log_size() == size
    with attached(engine) as terminal:
        terminal.wait("10.2.2.2")
        terminal.wait(lambda: "10.1.1.1" not in terminal.text)  # closed, it lingers for 5 s


def counter(engine: Engine, name: str) -> int:
    """Bytes that the program has read (rchar) or written (wchar) so far; its children's do not count."""
    text = Path(f"/proc/{host_pid(engine)}/io").read_text()
    return int(dict(line.split(": ") for line in text.splitlines())[name])


def repaint(engine: Engine, times: int) -> None:
    """Whole frames, a new one as soon as one is out."""
    flip = f"for i in $(seq {times}); do stty -F /dev/console cols $((200 + i % 2)); sleep 0.03; done"
    engine.inside("sh", "-c", flip)


def test_a_viewer_that_hangs_does_not_stop_the_reading(engine: Engine, up: Callable[..., None]) -> None:
    up()
    for n in range(1, 41):
        engine.add_flow(f"10.1.1.{n}")  # a frame of these has about 10 kB
    listing = len(engine.namespace.run(["conntrack", "-L", "-o", "extended,id"]).stdout)
    with attached(engine, (200, 60)) as hung:
        os.kill(hung.pid, signal.SIGSTOP)
        try:
            written = -SMALL  # about 1.2 MB, until everything on the way is full
            while written + SMALL <= (written := counter(engine, "wchar")):
                repaint(engine, 30)
            engine.add_flow("10.7.7.7")
            read = counter(engine, "rchar")
            wait_for(lambda: counter(engine, "rchar") > read + 3 * listing, what="three listings")
            beat_again(engine)
            repaint(engine, 30)
            assert counter(engine, "wchar") < written + 30 * SMALL  # still hung
        finally:
            os.kill(hung.pid, signal.SIGCONT)
        hung.type("/10.7.7.7\r")
        hung.wait("10.7.7.7:4000")


def test_a_second_way_to_look(engine: Engine, up: Callable[..., None]) -> None:
    up()
    engine.add_flow("10.1.2.3")
    program = ["docker", "exec", "-it", NAME, NAME]
    with Terminal(size=(90, 20), env=engine.env, program=program) as terminal:
        terminal.wait("10.1.2.3")
        terminal.type("q")
        assert terminal.end() == 0
    assert engine.inspect("{{.State.Running}} {{.RestartCount}}") == "true 0"
    assert "10.1.2.3" in engine.inside(NAME, "--once")


@pytest.fixture(params=["1", *(["2"] if PLUGIN else [])])
def composer(request: pytest.FixtureRequest, engine: Engine) -> Iterator[str]:
    """Each major version of compose that is here."""
    with engine.plugin() if request.param == "2" else nullcontext():
        assert re.search(
            rf"(?i)compose version.* v?{request.param}\.", run(*engine.composer[:-2], "version", env=engine.env)
        )
        yield request.param


def test_compose_run(engine: Engine, up: Callable[..., None], composer: str) -> None:
    if composer == "2":  # 1 can't while the service is up
        up()
    engine.add_flow("10.1.2.3")
    program = [*engine.composer, "run", "--rm", NAME]
    with Terminal(size=(90, 20), env={**engine.env, **QUIET}, program=program) as terminal:
        terminal.wait("10.1.2.3")
        terminal.type("q")
        assert terminal.end() == 0
    left = "" if composer == "1" else NAME
    wait_for(lambda: engine.docker("ps", "-a", "--format", "{{.Names}}").strip() == left, what="its removal")


def test_either_compose_starts_and_removes_it(engine: Engine, up: Callable[..., None], composer: str) -> None:
    up()
    engine.add_flow("10.1.2.3")
    with attached(engine) as terminal:
        terminal.wait("10.1.2.3")
    assert "obsolete" not in engine.compose("ps")
    engine.compose("down")
    assert engine.status() == ""
    assert sorted(engine.docker("volume", "ls", "-q").split()) == list(VOLUMES)
    printed = install(engine)
    assert re.search(rf"compose v?{composer}\.", printed), printed
    assert engine.status() == "running"
    folder = engine.folder / "a home" / NAME
    for word, status in (("stop", "exited"), ("start", "running")):
        run(str(folder / NAME), word, env={**engine.env, **QUIET})
        assert engine.status() == status
    shutil.rmtree(folder)


def test_what_runs_elsewhere_reads_through_docker_exec(engine: Engine, up: Callable[..., None]) -> None:
    up()
    engine.add_flow("10.1.2.3")
    argv = [*PROGRAM, "--once", "--json", "--via", f"docker exec {NAME}"]
    (flow,) = [line for line in run(*argv, env={**engine.env, **QUIET}).splitlines() if line.startswith("{")]
    assert json.loads(flow)["original"]["src"] == "10.1.2.3"


def test_a_container_with_an_address_of_its_own_is_named(engine: Engine) -> None:
    labels = [f"--label=com.docker.compose.{key}" for key in ("project=web", "service=db")]
    engine.docker("run", "-d", "--name", "web-db-1", *labels, "--entrypoint", "sleep", IMAGE, "600")
    try:
        address = engine.inspect("{{.NetworkSettings.IPAddress}}", "web-db-1")
        engine.add_flow(address)
        argv = [*engine.namespace.prefix, *PROGRAM, "--no-config", "--once", "--json", "-f", "container:web/db"]
        (flow,) = [line for line in run(*argv, env={**engine.env, **QUIET}).splitlines() if line.startswith("{")]
        near = json.loads(flow)["near"]
        assert (near["ip"], near["container"]) == (address, "web-db-1")
    finally:
        engine.docker("rm", "-f", "web-db-1")


# --- the databases --------------------------------------------------------------------------------


@pytest.fixture
def server(engine: Engine, tmp_path: Path) -> Iterator[Server]:
    """DB-IP as the container sees it."""
    shelf = make_mmdb.make(tmp_path / "shelf")
    with listen_in(engine.namespace.name) as listener, serving(listener) as made:
        month = time.strftime("%Y-%m", time.gmtime())
        for kind in ("city", "asn"):
            made.serve(kind, month, gzip.compress((shelf / f"dbip-{kind}-lite.mmdb").read_bytes()))
        yield made


def test_databases_are_fetched_once_kept_and_what_you_copy_in_is_preferred(
    engine: Engine, up: Callable[..., None], server: Server, tmp_path: Path
) -> None:
    env = {"CONNTRACK_MONITOR_GEOIP_URL": server.url, "CONNTRACK_MONITOR_NO_DOWNLOAD": ""}
    up(**env)
    engine.add_flow("10.1.2.3", "8.8.8.8")
    with attached(engine, (160, 30)) as terminal:
        terminal.wait("Google LLC")
    assert sorted(server.asked) == sorted(set(server.asked))
    asked = len(server.asked)

    engine.compose("down", env=env)
    assert engine.status() == ""
    assert "conntrack-monitor_geoip-data" in engine.docker("volume", "ls", "-q").split()
    up_again = engine.compose("up", "-d", "--no-build", env=env)
    assert "geoip-data" not in up_again  # not made anew
    with attached(engine, (160, 30)) as terminal:
        terminal.wait("Google LLC")
        assert len(server.asked) == asked

        mine = tmp_path / "GeoLite2-City.mmdb"
        make_mmdb.write(mine, "GeoLite2-City", {"8.8.8.0/24": make_mmdb.place("SE", "Sweden", "Kiruna")})
        engine.docker("cp", str(mine), f"{NAME}:{PLACE}/")
        terminal.wait("SE")

        whole = mine.read_bytes()
        for broken in (whole[: len(whole) // 2], b"", b"\0" * 5000, whole[:-40]):
            mine.write_bytes(broken)
            engine.docker("cp", str(mine), f"{NAME}:{PLACE}/")
            beat_again(engine)
        terminal.wait("GeoLite2-City.mmdb")  # named as what is wrong
        mine.write_bytes(whole)
        engine.docker("cp", str(mine), f"{NAME}:{PLACE}/")
        terminal.wait(lambda: "GeoLite2-City.mmdb" not in terminal.text and "SE" in terminal.text)
    assert engine.inspect("{{.RestartCount}}") == "0"


def test_the_hint_about_no_databases_is_a_command_of_the_host(engine: Engine, up: Callable[..., None]) -> None:
    up(CONNTRACK_MONITOR_GEOIP_URL="http://127.0.0.1:1/", CONNTRACK_MONITOR_NO_DOWNLOAD="")
    command = f"docker exec {NAME} {NAME} --update-geoip"
    with attached(engine, (160, 30)) as terminal:  # room for more than the first thing that is wrong
        terminal.wait(f"try: {command}")
    assert "not fetched: 127.0.0.1" in engine.docker(*command.split()[1:], check=False)


# --- the flow log ---------------------------------------------------------------------------------


def closed(engine: Engine, source: str) -> None:
    """A flow that begins and ends while the log is kept."""
    engine.add_flow(source)
    engine.delete_flow(source)


def who(engine: Engine, address: str) -> str:
    """What the container's program answers of this minute, by its own clock."""
    ask = f"{NAME} --who {address} --at $(date +%H:%M)"
    return engine.inside("sh", "-c", ask, check=False)


def test_no_log_unless_it_is_asked_for(engine: Engine, up: Callable[..., None]) -> None:
    up()
    closed(engine, "10.1.2.3")
    beat_again(engine)
    assert engine.inside("ls", "-A", "/log") == ""


def test_the_log_is_in_its_volume_and_stays(engine: Engine, up: Callable[..., None], composer: str) -> None:
    assert composer
    up(CONNTRACK_MONITOR_LOG="/log", CONNTRACK_MONITOR_LOG_KEEP="7")
    wait_for(lambda: "flows-" in engine.inside("ls", "/log"), what="the first file")
    assert engine.inside("stat", "-c", "%a %u", "/log").split() == ["700", "0"]  # as the image has it
    closed(engine, "10.1.2.3")
    wait_for(lambda: "192.0.2.7:443" in who(engine, "10.1.2.3"), lambda: who(engine, "10.1.2.3"))
    engine.add_flow("10.4.4.4")
    program = ["docker", "exec", "-it", NAME, NAME]  # another screen leaves the log to the one that writes it
    with Terminal(size=(120, 20), env=engine.env, program=program) as terminal:
        terminal.wait("10.4.4.4")
        terminal.type("q")
        assert terminal.end() == 0
    engine.docker("stop", NAME)
    assert engine.inspect("{{.State.ExitCode}}") == "0"
    engine.compose("down")
    up(CONNTRACK_MONITOR_LOG="/log")
    wait_for(lambda: "192.0.2.7:443" in who(engine, "10.4.4.4"), what="what the container before wrote")


# --- the setup script -----------------------------------------------------------------------------


def shlex_home(engine: Engine) -> str:
    return f"'{engine.folder}/a home/{NAME}/{NAME}'"


def install(engine: Engine, *words: str) -> str:
    home = engine.folder / "a home"
    home.mkdir(exist_ok=True)
    env = {**engine.env, **QUIET, "HOME": str(home), "SETUP_ROOT": str(engine.folder)}
    return run(str(ROOT / "setup-conntrack-monitor.sh"), *words, env=env)


def test_setup_from_nothing_to_nothing(engine: Engine, tmux: Tmux) -> None:
    engine.remove()
    engine.namespace.run(["conntrack", "-F"])
    folder = engine.folder / "a home" / NAME
    shutil.rmtree(folder, ignore_errors=True)
    for round in ("first", "again"):
        printed = install(engine)
        assert printed.count(" ok") == 6, round + printed
        assert engine.status() == "running"
    engine.add_flow("10.3.3.3")
    tmux.run("clear; echo before")
    tmux.run(f"{shlex_home(engine)} attach")
    tmux.wait("10.3.3.3")
    tmux.press("C-p", "C-q")
    tmux.wait("before", "Detached; the monitor keeps running.", gone=("10.3.3.3", "read escape sequence"))
    assert (tmux.fact("alternate_on"), tmux.fact("cursor_flag")) == ("0", "1")
    tmux.run(f"clear; {shlex_home(engine)} attach")
    tmux.wait("10.3.3.3")
    tmux.press("q")
    tmux.wait("starts it again. To stop it")
    wait_for(lambda: engine.status() == "running", what="the restart")
    wrapper = [str(folder / NAME)]
    assert "running" in run(*wrapper, "status", env=engine.env)
    run(*wrapper, "restart", env=engine.env)
    wait_for(lambda: takes_signals(engine), what="the entry point")
    run(*wrapper, "stop", env=engine.env)
    assert engine.inspect("{{.State.Status}} {{.State.ExitCode}}") == "exited 0"
    run(*wrapper, "start", env={**engine.env, **QUIET})  # as it was: nothing is made anew
    assert engine.status() == "running"
    assert "flow-log" not in engine.docker("volume", "ls", "-q")
    install(engine, "--log")
    wait_for(lambda: "flows-" in engine.inside("ls", "/log"), what="the flow log")
    install(engine)
    wait_for(lambda: "flows-" in engine.inside("ls", "/log"), what="the flow log, still")
    install(engine, "--uninstall", "--purge", "--yes")
    assert engine.docker("ps", "-aq") == ""
    assert engine.docker("volume", "ls", "-q") == ""
    assert IMAGE not in engine.docker("images", "--format", "{{.Repository}}:{{.Tag}}")
    assert not folder.exists()
    engine.docker("tag", KEPT, IMAGE)
