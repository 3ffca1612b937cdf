"""The container on a real engine: built from nothing, attached to, left, stopped, copied into, installed, removed."""

from __future__ import annotations

import ast
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

from support.debian import quick_folder, run
from support.docker import IMAGE, KEPT, NAME, PLUGIN, ROOT, VOLUMES, Engine, listen_in, missing_engine
from support.http import Server, serving
from support.terminal import PROGRAM, Terminal, Tmux
from support.waiting import wait_for

make_mmdb = pytest.importorskip("support.mmdb", reason="needs mmdb-writer and netaddr")

REASON = missing_engine()
pytestmark = pytest.mark.skipif(bool(REASON) and os.environ.get("CI") != "true", reason=REASON or "no reason")
LEAN = 60_000_000  # bytes; seen: 47 MB, of which 12 are the program
BEAT = "/run/conntrack-monitor"
SLEEP = "import signal; signal.pause()"
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


def python(engine: Engine, words: str) -> str:
    """What an expression or statement is in the container, which has no program that it does not need."""
    return engine.inside("python3", "-c", f"import os, time; {words}").strip()


def set_beat(engine: Engine, when: str) -> None:
    python(engine, f"open({BEAT!r}, 'a').close(); os.utime({BEAT!r}, ({when}, {when}))")


def beat_again(engine: Engine) -> None:
    """Until the loop has gone round again, from now on."""
    set_beat(engine, "1")
    wait_for(lambda: python(engine, f"print(int(os.stat({BEAT!r}).st_mtime))") != "1", what="a heartbeat")


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
    assert {"title", "description", "source", "licenses", "version", "revision", "created"} <= {
        name.removeprefix("org.opencontainers.image.") for name, value in labels.items() if value
    }
    assert image["Config"]["Entrypoint"][-3:] == [NAME, "--heartbeat", "/run/conntrack-monitor"]
    assert image["Config"]["Healthcheck"]["Test"][0] == "CMD"
    assert f"{labels['org.opencontainers.image.version']}\n" in engine.docker("run", "--rm", IMAGE, "--version")


@pytest.fixture(scope="module")
def tree(engine: Engine) -> Iterator[Path]:
    """All that the image holds."""
    with quick_folder("image") as folder:
        made = engine.docker("create", IMAGE).strip()
        run("sh", "-c", f"docker export {made} | tar -x -C {folder}", env=engine.env)
        engine.docker("rm", made)
        yield folder


# What each file is there for; what belongs to no purpose is one too many. Links lead to what is named here, too.
NEEDED = (
    r"opt/conntrack-monitor/(\w+\.py|__pycache__/[\w.-]+\.pyc|LICENSE|demo\.rec)",
    r"opt/conntrack-monitor/(IPy|blessed|click|jinxed|maxminddb|wcwidth)/([\w/]+/)?[\w.-]+\.(py|pyc|so)",
    r"opt/conntrack-monitor/[\w.-]+\.dist-info/(METADATA|licenses/.*)",
    r"usr/local/bin/conntrack-monitor",
    r"usr/s?bin/(conntrack|python3(\.\d+)?|sh|dash|env|find|cp|stty|cat|grep|ls|rm)",
    r"usr/lib/python3(\.\d+)?/([\w/-]+/)?[\w.-]+\.(py|pyc|so)",
    r"(usr/lib|usr/lib64|lib64)/([\w-]+/)?(lib[\w.+-]+\.so[.\d]*|ld-linux[\w.-]+)",
    r"usr/lib/locale/C\.utf8/.*",
    r"(lib|usr/lib|usr/share)/terminfo/.*",
    r"usr/share/zoneinfo/(?!right|posix/).*",
    r"etc/(passwd|group|nsswitch\.conf|services|protocols|os-release|debian_version|ld\.so\.conf(\.d/.*)?)",
    r"usr/lib/os-release",
    r"usr/lib/ssl/cert\.pem|etc/ssl/certs/ca-certificates\.crt",
    r"var/lib/dpkg/status\.d/[\w.+-]+|usr/share/doc/[\w.+-]+/copyright",
    r"bin|sbin|lib|lib32|lib64|libx32",
    r"\.dockerenv|etc/(hostname|hosts|resolv\.conf|mtab)|dev/console",  # the engine's own
)


def test_no_setuid_and_not_one_file_more_than_needed(tree: Path) -> None:
    whole = re.compile("|".join(f"(?:{pattern})" for pattern in NEEDED))
    files = [path for path in tree.rglob("*") if path.is_symlink() or not path.is_dir()]
    names = sorted(str(path.relative_to(tree)) for path in files)
    assert [name for name in names if not whole.fullmatch(name)] == []
    assert [path for path in files if not path.is_symlink() and path.lstat().st_mode & 0o6000] == []
    assert len(names) < 3000  # seen: 2,300
    assert not [name for name in names if re.search(r"bin/(perl|apt|dpkg|su|mount)|/(test|tkinter|idlelib)/", name)]
    assert "machine-authorities" not in (ROOT / "Dockerfile").read_text()


def imported(file: Path) -> set[str]:
    """The modules of other packages that a file names, wherever in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_bytes())):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
    return found


# Named for other systems, other Pythons and tests: never here.
ELSEWHERE = {"ansicon", "mock", "colorama", "doctest", "msvcrt", "typing_extensions", "winreg", "pydoc", "_typeshed"}


def test_each_module_that_is_named_is_there(engine: Engine, tree: Path) -> None:
    """The builder follows imports by one way, this by another: none was lost."""
    program = tree / "opt/conntrack-monitor"
    named = set().union(*map(imported, program.rglob("*.py"))) - ELSEWHERE
    assert {"sqlite3", "ssl", "curses", "blessed"} - named == {"curses"}
    find = "import importlib.util, sys; print([n for n in sys.argv[1:] if importlib.util.find_spec(n) is None])"
    words = ["-e", "PYTHONPATH=/opt/conntrack-monitor", "--entrypoint", "python3", IMAGE, "-c", find, *sorted(named)]
    assert engine.docker("run", "--rm", *words) == "[]\n"


def test_libraries_certificates_text_zones_and_terminals_are_there(engine: Engine, tree: Path) -> None:
    words = (
        "import importlib, locale, pathlib, ssl, sys, time\n"
        "for path in pathlib.Path(next(p for p in sys.path if p.endswith('lib-dynload'))).iterdir():\n"
        "    importlib.import_module(path.name.partition('.')[0])\n"
        "print(locale.setlocale(locale.LC_ALL, ''), time.tzname[1])\n"
        "print(ssl.create_default_context().cert_store_stats()['x509_ca'] > 50)"
    )
    said = engine.docker("run", "--rm", "-e", "TZ=Europe/Berlin", "--entrypoint", "python3", IMAGE, "-c", words)
    assert said == "C.UTF-8 CEST\nTrue\n"
    for name in ("linux", "xterm-256color", "screen-256color", "tmux"):
        assert list(tree.glob(f"usr/lib/terminfo/?/{name}"))
    assert (tree / "tmp").stat().st_mode & 0o7777 == 0o1777


def test_folders_are_there_whole(tree: Path, debian: Path) -> None:
    """Zones, terminals, text: all files that the base has in these."""
    whole = re.compile(r"\./(usr/share/zoneinfo/(?!right/|posix/)|usr/lib/terminfo/|usr/lib/locale/C\.utf8/).*[^/]")
    wanted = [name for name in run("tar", "-tf", str(debian)).splitlines() if whole.fullmatch(name)]
    assert len(wanted) > 400
    assert [name for name in wanted if not os.path.lexists(tree / name)] == []


def test_packages_are_noted_for_who_looks_for_flaws(tree: Path) -> None:
    status = tree / "var/lib/dpkg/status.d"
    assert {"conntrack", "libc6", "libssl3", "ca-certificates"} <= {
        path.name.removesuffix("t64") for path in status.iterdir()
    }
    for path in status.iterdir():
        assert re.search(r"^Version: \d", path.read_text(), re.M)


def test_image_from_nothing_to_the_first_screen_and_back(engine: Engine) -> None:
    """By hand: make image, docker run, docker rmi."""
    engine.remove()
    engine.docker("rmi", IMAGE)
    run("make", "-C", str(ROOT), "image", env=engine.env)
    engine.namespace.run(["conntrack", "-F"])
    engine.add_flow("10.6.6.6")
    rights = ["--network", "host", "--cap-drop", "ALL", "--cap-add", "NET_ADMIN"]
    with Terminal(IMAGE, env=engine.env, program=["docker", "run", "--rm", "-it", *rights]) as terminal:
        terminal.wait("10.6.6.6")
        terminal.type("q")
        assert terminal.end() == 0
    engine.docker("rmi", IMAGE)
    assert engine.docker("ps", "-aq") == engine.docker("volume", "ls", "-q") == ""
    assert IMAGE not in engine.docker("images", "--format", "{{.Repository}}:{{.Tag}}")
    engine.docker("tag", KEPT, IMAGE)


def test_the_demonstration_plays(engine: Engine) -> None:
    with Terminal(
        IMAGE, "--demo", "--speed", "0", env=engine.env, program=["docker", "run", "--rm", "-it"]
    ) as terminal:
        terminal.wait("ESTAB")
        terminal.type("q")
        assert terminal.end() == 0


def test_a_machine_without_wheels_gets_packages_in_pure_python(engine: Engine, tmp_path: Path) -> None:
    """As arm/v7, for which nobody compiles maxminddb: pip is told that it is one. The reader finds what it finds elsewhere."""
    engine.docker("build", "-t", "cm-pure:1", "--build-arg", "PIP_PLATFORM=linux_armv7l", str(ROOT))
    try:
        there = "import glob, maxminddb.reader; print(glob.glob('/opt/conntrack-monitor/**/*.so', recursive=True))"
        words = ["-e", "PYTHONPATH=/opt/conntrack-monitor", "--entrypoint", "python3", "cm-pure:1", "-c", there]
        assert engine.docker("run", "--rm", *words) == "[]\n"
        mine = make_mmdb.write(
            tmp_path / "GeoLite2-City.mmdb", "GeoLite2-City", {"8.8.8.0/24": make_mmdb.place("SE", "Sweden", "Kiruna")}
        )
        engine.add_flow("10.1.2.3", "8.8.8.8")
        rights = ["--network", "host", "--cap-drop", "ALL", "--cap-add", "NET_ADMIN", "--cap-add", "DAC_OVERRIDE"]
        said = engine.docker("run", "--rm", *rights, "-v", f"{tmp_path}:{PLACE}", "cm-pure:1", "--once", "--json")
        assert '"Kiruna"' in said, mine
    finally:
        engine.docker("rmi", "cm-pure:1")


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
    engine = "$engine" if name.endswith(".sh") else "docker"
    ours, theirs = "conntrack-monitor/conntrack-monitor attach", f"{engine} attach conntrack-monitor"
    assert -1 < text.find(ours) < text.find(theirs)
    for row in (line for line in text.splitlines() if line.startswith("| ") and theirs in line):
        if not row.startswith(f"| `{theirs}`"):  # the row about itself
            assert -1 < row.find(ours) < row.find(theirs), row


HOST = ("--network", "host")
NET_ADMIN = ("--cap-add", "NET_ADMIN")


def cure_of(said: str, what: str) -> list[str]:
    """The words of the command that follows what is wrong."""
    (cure,) = re.findall(rf"{re.escape(what)}[^;\n]*; try: (.*)", said)
    return str(cure).split()


@pytest.mark.parametrize(
    ("way", "what"),
    [
        (["--cap-drop", "ALL", *HOST], "not permitted"),
        ([], "not permitted"),
        (["-u", "1000", *HOST, *NET_ADMIN], "not permitted"),  # Docker gives the right to no other user
        (list(NET_ADMIN), "0 entries: this container has a network of its own"),
        (["--network", "none", *NET_ADMIN], "0 entries: this container has a network of its own"),
    ],
    ids=["no right", "plain", "user", "bridge", "no network"],
)
def test_what_a_plain_docker_run_lacks_is_a_command_of_the_host(engine: Engine, way: list[str], what: str) -> None:
    """Typed as it stands, and with what was asked for behind it, it shows the host's table."""
    engine.namespace.run(["conntrack", "-F"])
    engine.add_flow("10.1.2.3")
    said = engine.docker("run", "--rm", *way, IMAGE, "--once", check=False)
    words = cure_of(said, what)
    assert words[:2] == ["docker", "run"]
    assert ("--user" in words) is ("-u" in way)
    assert "iptables" not in said
    assert "10.1.2.3" in engine.docker("run", "--rm", *words[2:], "--once")


def test_no_traffic_on_the_host_is_the_host_s_matter(engine: Engine) -> None:
    engine.namespace.run(["conntrack", "-F"])
    said = engine.docker("run", "--rm", *HOST, *NET_ADMIN, IMAGE, "--once")
    assert cure_of(said, "0 entries: either no traffic")[0] == "iptables"


def test_databases_of_a_plain_docker_run(engine: Engine) -> None:
    """While it runs, by docker exec with its own name; of one that has ended, by another with the same volume."""
    settings = ["-e", "CONNTRACK_MONITOR_GEOIP_URL=http://127.0.0.1:1/"]
    said = engine.docker("run", "--rm", *HOST, *NET_ADMIN, IMAGE, "--once")
    words = cure_of(said, "no GeoIP database")
    assert words[:4] == ["docker", "run", "--rm", "-v"]
    update = words[2 : words.index("--update-geoip,")]
    assert "not fetched: 127.0.0.1" in engine.docker("run", *HOST, *settings, *update, "--update-geoip", check=False)
    words = ["docker", "run", "--rm", "-it", *HOST, *NET_ADMIN, *settings]
    with Terminal(IMAGE, size=(160, 30), env=engine.env, program=words) as terminal:
        terminal.wait("--update-geoip")
        (cure,) = re.findall(r"try: docker (exec \w{12} conntrack-monitor --update-geoip)", terminal.text)
        assert "not fetched: 127.0.0.1" in engine.docker(*cure.split(), check=False)
        terminal.type("q")
        assert terminal.end() == 0
    engine.docker("volume", "rm", VOLUMES[1], check=False)


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
    assert "Read-only file system" in engine.inside("sh", "-c", ">/opt/x", check=False)
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
        set_beat(engine, "time.time() - 20")
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
    flip = "os.system(f'stty -F /dev/console cols {200 + i % 2}') or time.sleep(0.03)"
    python(engine, f"[{flip} for i in range({times})]")


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
    engine.docker("run", "-d", "--name", "web-db-1", *labels, "--entrypoint", "python3", IMAGE, "-c", SLEEP)
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
    return engine.inside(NAME, "--who", address, "--at", time.strftime("%H:%M", time.gmtime()), check=False)


def test_no_log_unless_it_is_asked_for(engine: Engine, up: Callable[..., None]) -> None:
    up()
    closed(engine, "10.1.2.3")
    beat_again(engine)
    assert engine.inside("ls", "-A", "/log") == ""


def test_the_log_is_in_its_volume_and_stays(engine: Engine, up: Callable[..., None], composer: str) -> None:
    assert composer
    up(CONNTRACK_MONITOR_LOG="/log", CONNTRACK_MONITOR_LOG_KEEP="7")
    wait_for(lambda: "flows-" in engine.inside("ls", "/log"), what="the first file")
    assert (
        python(engine, "s = os.stat('/log'); print(f'{s.st_mode & 0o777:o} {s.st_uid}')") == "700 0"
    )  # as the image has it
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
    said = run(*wrapper, "status", env=engine.env, check=False)
    assert (
        said == f"{NAME}: exited, since {engine.inspect('{{.State.FinishedAt}}')}, exit status 0\n"
    )  # no stale health
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
