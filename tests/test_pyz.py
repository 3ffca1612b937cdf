"""The one file: what is in it, the same bytes from the same commit, every Python here, a bare Debian without network."""

from __future__ import annotations

import json
import marshal
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from support import debian as bare
from support.kernel import Lab, comparable, conntrack_xml, kernel_mark
from support.terminal import Terminal

ROOT = Path(__file__).parent.parent
MIXED = ROOT / "fixtures" / "captures" / "mixed-table" / "L.ext-id.txt"
DEMO = ROOT / "fixtures" / "demo.rec"
ONCE = ["--once", "--json", "--replay", str(MIXED)]
BARE_ENV = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8", "HOME": "/root"}


def pythons() -> dict[str, str]:
    """The Pythons here, 3.10 to 3.13, by version: on the PATH or pyenv's."""
    found = {}
    for minor in range(10, 14):
        name = f"python3.{minor}"
        places = [
            shutil.which(name) or "",
            *map(str, (Path.home() / ".pyenv" / "versions").glob(f"3.{minor}.*/bin/{name}")),
        ]
        for place in places:  # pyenv's shims on the PATH may lead nowhere
            if place and subprocess.run([place, "-c", ""], capture_output=True, check=False).returncode == 0:
                found[f"3.{minor}"] = place
                break
    return found


PYTHONS = pythons()


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    """No database, a cache of the test's own."""
    return {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache"), "GEOIP_DB_PATHS": str(tmp_path / "none")}


def run(*argv: object, env: Mapping[str, str]) -> str:
    """What a command printed; it must do well and say nothing of errors."""
    done = subprocess.run(
        list(map(str, argv)), env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout


def timeless(text: str) -> list[dict[str, object]]:
    """JSON lines without the moment they were written."""
    return [{**json.loads(line), "time": ""} for line in text.splitlines()]


# --- what it is -------------------------------------------------------------------------------------------------------


def test_the_same_commit_gives_the_same_bytes(pyz: Path, tmp_path: Path) -> None:
    """By another Python where there is one, in another folder, locale, time zone and with another umask."""
    other = next((path for version, path in PYTHONS.items() if not sys.version.startswith(version)), sys.executable)
    with_pip = subprocess.run([other, "-m", "pip", "--version"], capture_output=True, check=False).returncode == 0
    again = tmp_path / "again.pyz"
    command = 'umask 077; cd /; exec "$@"'
    builder = [other if with_pip else sys.executable, ROOT / "scripts" / "build_pyz.py", again]
    run("sh", "-c", command, "sh", *builder, env={**os.environ, "TZ": "Asia/Kolkata", "LC_ALL": "C"})
    assert again.read_bytes() == pyz.read_bytes()
    assert again.stat().st_mode & 0o777 == 0o755


def test_all_packages_and_modules_are_inside_and_pure(pyz: Path) -> None:
    names = zipfile.ZipFile(pyz).namelist()
    for package in ("blessed", "IPy", "maxminddb", "click", "wcwidth"):
        assert f"{package}/__init__.py" in names
    assert {path.name for path in ROOT.glob("*.py")} <= set(names)
    assert [name for name in names if name.endswith((".so", ".pyc", ".pyi"))] == []
    assert [name for name in names if name.startswith("maxminddb-") and name.endswith(".dist-info/METADATA")]
    told = {name.partition("-")[0].lower() for name in names if ".dist-info/licenses/" in name}
    assert told == {"blessed", "click", "ipy", "jinxed", "maxminddb", "wcwidth"}


def test_the_demo_is_inside(pyz: Path, env: dict[str, str], tmp_path: Path) -> None:
    alone = shutil.copy(pyz, tmp_path)
    assert timeless(run(sys.executable, alone, "--demo", "--once", "--json", env=env)) == timeless(
        run(sys.executable, ROOT / "conntrack_monitor.py", "--replay", DEMO, "--once", "--json", env=env)
    )


def test_the_version_names_the_commit(pyz: Path, env: dict[str, str]) -> None:
    git = ["git", "-c", "safe.directory=*", "-C", ROOT]
    commit = run(*git, "rev-parse", "HEAD", env=env).strip()
    assert f"(commit {commit}" in run(sys.executable, pyz, "--version", env=env)
    plain = run(sys.executable, ROOT / "conntrack_monitor.py", "--version", env=env)
    assert "commit" not in plain.splitlines()[0]


def test_requirements_and_their_hashes_are_of_the_same_versions(tmp_path: Path) -> None:
    for name in ("scripts/build_pyz.py", "requirements.lock", "requirements.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    asks = "import build_pyz; print(len(build_pyz.locked()))"
    env = {**os.environ, "PYTHONPATH": str(tmp_path / "scripts")}
    assert run(sys.executable, "-c", asks, env=env) == "6\n"
    text = (tmp_path / "requirements.txt").read_text()
    (tmp_path / "requirements.txt").write_text(text.replace("click==", "click==9"))
    refused = subprocess.run([sys.executable, "-c", asks], env=env, capture_output=True, text=True, check=False)
    assert refused.returncode == 1
    assert "requirements.txt has click==9" in refused.stderr


# --- on every Python --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", sorted(PYTHONS))
def test_every_python_runs_the_file(version: str, pyz: Path, env: dict[str, str], tmp_path: Path) -> None:
    python = PYTHONS[version]
    checkout = timeless(run(sys.executable, ROOT / "conntrack_monitor.py", *ONCE, env=env))
    for _ in range(2):  # compiled anew, then from what was kept
        assert "commit" in run(python, "-W", "error", pyz, "--version", env=env)
        assert timeless(run(python, "-W", "error", pyz, *ONCE, env=env)) == checkout
        kept = [path.name for path in (tmp_path / "cache" / "conntrack-monitor" / "code").iterdir()]
        assert len(kept) == 1
        assert kept[0].endswith("-" + version.replace(".", ""))
    with Terminal("--replay", str(DEMO), "--speed", "0", program=[python, str(pyz)], env=env) as screen:
        screen.wait("ESTAB")
        screen.type("q")
        assert screen.end() == 0


def test_a_python_too_old_is_told(pyz: Path, env: dict[str, str], tmp_path: Path) -> None:
    """Played by this one: it reads the file's first module with another version in sys."""
    first = zipfile.ZipFile(pyz).read("__main__.py").decode()
    compile(first.replace("from __future__", ""), "__main__.py", "exec")
    assert not [word for word in ("annotations", ":=", "match ", "{sys", 'f"') if word in first]
    (tmp_path / "first.py").write_text(first)
    script = f"import sys, runpy; sys.version_info = (3, 6, 8); runpy.run_path({str(tmp_path / 'first.py')!r})"
    done = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (
        1,
        "conntrack-monitor: Python 3.10 or later is needed; this is 3.6\n",
    )


# --- wherever it lies -------------------------------------------------------------------------------------------------


def test_a_path_with_blanks_a_link_a_name_of_ones_own(pyz: Path, env: dict[str, str], tmp_path: Path) -> None:
    folder = tmp_path / "a folder"
    folder.mkdir()
    program = shutil.copy(pyz, folder / "my monitor")
    link = tmp_path / "monitor"
    link.symlink_to(program)
    whole = {**env, "PATH": f"{tmp_path}:{env['PATH']}"}
    for argv in ([program], [link], ["monitor"], [sys.executable, "-I", program]):
        assert len(timeless(run(*argv, *ONCE, env=whole))) == MIXED.read_bytes().count(b"\n")


def test_the_cure_works_where_it_was_read(pyz: Path, env: dict[str, str], tmp_path: Path) -> None:
    """Typed again, the words that the hint names start the file."""
    folder = tmp_path / "a folder"
    folder.mkdir()
    program = Path(shutil.copy(pyz, folder / "ctm"))
    whole = {**env, "PATH": f"{tmp_path}:{env['PATH']}", "CONNTRACK_MONITOR_GEOIP_URL": "http://127.0.0.1:1/"}

    def hint(*argv: object) -> str:
        words = [*map(str, argv), *ONCE]
        done = subprocess.run(words, env=whole, cwd=folder, capture_output=True, text=True, timeout=60, check=False)
        ((cure, options),) = re.findall(r"no GeoIP database; try: (.*) (--update-geoip.*)\n", done.stderr)
        inside = "CONNTRACK_MONITOR_CALLED" in whole  # a container's environment speaks for itself
        assert options == "--update-geoip" + ("" if inside else f" --geoip-db {env['GEOIP_DB_PATHS']}")
        words = ["sh", "-c", f"{cure} {options}"]
        again = subprocess.run(words, env=whole, cwd=folder, capture_output=True, text=True, timeout=60, check=False)
        assert (again.returncode, "not fetched" in again.stderr) == (1, True), again.stderr
        return str(cure)

    assert hint("./ctm") == "./ctm"
    assert hint(program) == f"'{program}'"
    (tmp_path / "ctm").symlink_to(program)
    assert hint("ctm") == "ctm"
    (tmp_path / "ctm").unlink()
    program.chmod(0o644)
    assert hint(sys.executable, "ctm") == "python3 ctm"
    checkout = [sys.executable, ROOT / "conntrack_monitor.py"]
    assert hint(*checkout) == f"{sys.executable} {ROOT}/conntrack_monitor.py"
    whole["CONNTRACK_MONITOR_CALLED"] = f"exec {sys.executable} {program.name}"  # as a compose file has it
    assert hint("python3", "ctm") == whole["CONNTRACK_MONITOR_CALLED"]


def test_without_a_place_to_keep_anything(pyz: Path, env: dict[str, str], tmp_path: Path) -> None:
    whole = {**env, "XDG_CACHE_HOME": "/proc/no/such"}
    assert timeless(run(pyz, *ONCE, env=whole)) == timeless(run(pyz, *ONCE, env=env))
    (tmp_path / "file").write_text("")
    assert run(pyz, "--version", env={**env, "XDG_CACHE_HOME": str(tmp_path / "file")})


def test_a_screen_goes_on_while_the_file_is_written_over(pyz: Path, env: dict[str, str], tmp_path: Path) -> None:
    program = Path(shutil.copy(pyz, tmp_path / "monitor.pyz"))
    assert run(program, "--version", env=env)
    with Terminal("--replay", str(DEMO), "--speed", "0", program=[str(program)], env=env) as screen:
        screen.wait("ESTAB")
        program.write_bytes(b"an upgrade that has only begun")
        for key, words, gone in (
            ("?", "this help", "DESTINATION"),
            ("\x1b", "DESTINATION", "this help"),
            ("j\r", "original", "DESTINATION"),
            ("\x1b", "DESTINATION", "original"),  # a key that came too early would be Alt with that key
        ):
            screen.type(key)
            screen.wait(lambda words=words, gone=gone: words in screen.text and gone not in screen.text)  # type: ignore[misc]
        screen.type("q")
        assert screen.end() == 0


# --- what is kept -----------------------------------------------------------------------------------------------------


@pytest.fixture
def kept(pyz: Path, env: dict[str, str], tmp_path: Path) -> Path:
    """The file that the first start keeps."""
    run(sys.executable, pyz, "--version", env=env)
    (path,) = (tmp_path / "cache" / "conntrack-monitor" / "code").iterdir()
    return path


def plant(path: Path) -> None:
    """What would be run in place of our first module, if it were taken for ours."""
    modules = marshal.loads(path.read_bytes())
    modules["conntrack_monitor"] = (False, marshal.dumps(compile("def main(): print('planted')", "x", "exec")))
    path.write_bytes(marshal.dumps(modules))


@pytest.mark.parametrize(("mode", "planted"), [(0o700, True), (0o770, False), (0o707, False)])
def test_what_others_could_have_written_is_not_run(
    mode: int, planted: bool, pyz: Path, env: dict[str, str], kept: Path
) -> None:
    plant(kept)
    kept.parent.chmod(mode)
    assert ("planted" in run(sys.executable, pyz, "--version", env=env)) is planted


@pytest.mark.skipif(os.geteuid() != 0, reason="giving files to another user needs root")
def test_what_belongs_to_another_is_not_run_nor_written(pyz: Path, env: dict[str, str], kept: Path) -> None:
    """sudo that keeps HOME: a user's cache, seen by root."""
    plant(kept)
    for path in (kept, kept.parent, kept.parent.parent):
        os.chown(path, 65534, -1)
        assert "planted" not in run(sys.executable, pyz, "--version", env=env)
    kept.unlink()
    run(sys.executable, pyz, "--version", env=env)
    assert list(kept.parent.iterdir()) == []


@pytest.mark.parametrize("damage", [b"", b"junk", None], ids=["empty", "junk", "half"])
def test_damage_is_mended(damage: bytes | None, pyz: Path, env: dict[str, str], kept: Path) -> None:
    whole = kept.read_bytes()
    kept.write_bytes(whole[: len(whole) // 2] if damage is None else damage)
    assert "commit" in run(sys.executable, pyz, "--version", env=env)
    assert len(kept.read_bytes()) == len(whole)


def test_of_each_python_only_the_newest_is_kept(pyz: Path, env: dict[str, str], kept: Path) -> None:
    tag = kept.name.partition(".")[2]
    old, foreign = kept.with_name(f"0123456789abcdef.{tag}"), kept.with_name("0123456789abcdef.cpython-399")
    old.write_bytes(b"")
    foreign.write_bytes(b"")
    kept.unlink()
    run(sys.executable, pyz, "--version", env=env)
    assert sorted(kept.parent.iterdir()) == sorted([kept, foreign])


def test_only_what_has_our_names_form_is_removed(pyz: Path, env: dict[str, str], kept: Path) -> None:
    tag = kept.name.partition(".")[2]
    ours = [kept.with_name(f"0123456789abcdef.{tag}"), kept.with_name(f"fedcba9876543210.{tag}.4711")]
    others = [
        kept.with_name(name)
        for name in (f"typing.{tag}.pyc", f"x0123456789abcdef.{tag}", f"0123.{tag}", f"notes.{tag}")
    ]
    for path in (*ours, *others):
        path.write_bytes(b"")
    kept.unlink()
    run(sys.executable, pyz, "--version", env=env)
    assert sorted(kept.parent.iterdir()) == sorted([kept, *others])


@pytest.mark.parametrize("link", ["conntrack-monitor", "conntrack-monitor/code"])
def test_a_link_on_the_way_is_not_followed(link: str, pyz: Path, env: dict[str, str], tmp_path: Path) -> None:
    """sudo that keeps HOME: a user's link leads to a folder of root's, where names may even have the form of ours."""
    tag = f"{sys.implementation.cache_tag}"
    elsewhere = tmp_path / "elsewhere"
    theirs = [elsewhere / "code" / name for name in (f"typing.{tag}.pyc", f"0123456789abcdef.{tag}")]
    theirs += [elsewhere / path.name for path in theirs]
    (elsewhere / "code").mkdir(parents=True)
    for path in theirs:
        path.write_bytes(b"")
    place = tmp_path / "cache" / link
    place.parent.mkdir(parents=True)
    place.symlink_to(elsewhere)
    assert "commit" in run(sys.executable, pyz, "--version", env=env)
    assert sorted(path for path in elsewhere.rglob("*") if path.is_file()) == sorted(theirs)


# --- a bare Debian without network ------------------------------------------------------------------------------------

needs_kernel = kernel_mark()


@pytest.fixture
def there(pyz: Path, minbase: Path) -> Iterator[tuple[Lab, list[str]]]:
    """A router with traffic, and the words that run the file on it in the bare Debian."""
    shutil.copy(pyz, minbase / "conntrack-monitor.pyz")
    shutil.copy(DEMO, minbase / "demo.rec")
    with Lab() as lab:
        yield lab, [*bare.inside(lab.router, minbase), "/conntrack-monitor.pyz"]


@needs_kernel
def test_a_bare_debian_without_network(there: tuple[Lab, list[str]]) -> None:
    lab, program = there
    lab.echo_server(80)
    with lab.tcp_connect(80) as connection:
        lab.wait_flow(protocol="tcp", state="ESTABLISHED")
        lab.udp_unanswered(53, flows=3)
        assert "commit" in run(*program, "--version", env=BARE_ENV)
        found = [json.loads(line) for line in run(*program, "--once", "--json", env=BARE_ENV).splitlines()]
        names = ("original", "reply", "protocol", "state")
        mine = [{name: comparable(item).get(name) for name in names} for item in found]
        kernel = [{name: flow.get(name) for name in names} for flow in conntrack_xml(lab.router)]
        assert len(mine) == 4
        assert sorted(map(str, mine)) == sorted(map(str, kernel))
        with Terminal("--interval", "0.5", program=program, env=BARE_ENV) as screen:
            screen.wait(lambda: f":{connection.port}" in screen.text and "ESTAB" in screen.text)
            screen.type("q")
            assert screen.end() == 0
    assert timeless(run(*program, "--replay", "/demo.rec", "--once", "--json", env=BARE_ENV))
