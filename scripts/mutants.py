"""Breaks the program on purpose, one small change at a time: of each some test must notice it.

    python scripts/mutants.py [-k WORD] [--part 1/4] [--sample 20]

The changes are in tests/mutants.txt, which says how it is written. A change is made in a copy of the checkout, in
whichever module its old text is (exactly once), and the tests it names are run there: their files are found by their
names. pytest and hypothesis are imported once, and every run is a fork of this process that then imports the program.
"""

from __future__ import annotations

import argparse
import compileall
import os
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
AT_ONCE = 2
BOUND = 60  # seconds that the tests of one change may take: what hangs is noticed, too
MEMORY = 4 << 30  # bytes: what fills the memory ends
LEFT_OUT = shutil.ignore_patterns(".*", "dist", "__pycache__", "bench", "*.pyz")
PROFILE = "mutants"
OPTIONS = (
    *("-x", "-q", "--no-header", "--tb=line", "-p", "no:cacheprovider", "-p", "no:doctest", "-o", "addopts="),
    *("-W", "ignore::pytest.PytestAssertRewriteWarning", f"--hypothesis-profile={PROFILE}"),
)
FAILED, HANGS, NO_SUCH_TEST = (1, 2, 3), -signal.SIGALRM, (4, 5)


class Wrong(Exception):
    """The list, or a change in it, does not say what is to be done."""


@dataclass
class Mutant:
    """A small change, what the user would feel, and the names of the tests that notice it."""

    feels: str
    line: int  # of the list
    old: str = ""
    new: str = ""
    tests: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Place:
    """Where a change is to be made, and what to run then."""

    file: str
    line: int
    tests: tuple[str, ...]


# --- the list ---------------------------------------------------------------------------------------------------------


def read(text: str) -> list[Mutant]:
    """The changes of a list. Raises Wrong."""
    mutants: list[Mutant] = []
    for number, line in enumerate(text.splitlines(), 1):
        mark, _, rest = line.partition(" ")
        if mark == "*":
            mutants.append(Mutant(rest, number))
        elif mutants and line.startswith("  "):
            mutants[-1].feels += " " + line.strip()
        elif mutants and mark == "-":
            mutants[-1].old += rest + "\n"
        elif mutants and mark == "+":
            mutants[-1].new += rest + "\n"
        elif mutants and mark == "!":
            mutants[-1].tests += rest.split()
        elif line.strip() and mark != "#":
            raise Wrong(f"line {number}: '{line}' is neither a change nor a comment")
    for mutant in mutants:
        mutant.old, mutant.new = mutant.old.removesuffix("\n"), mutant.new.removesuffix("\n")
        if not (mutant.feels and mutant.old and mutant.tests) or mutant.old == mutant.new:
            raise Wrong(f"line {mutant.line}: a change has a sentence, an old text, another new one, and a test")
    return mutants


class Checkout:
    """The texts of the program and the tests, as far as they are searched."""

    def __init__(self, root: Path) -> None:
        self._modules = {path.name: path.read_text() for path in sorted(root.glob("*.py"))}
        self._homes: dict[str, list[str]] = {}
        for path in sorted(root.glob("tests/**/test_*.py")):
            for name in re.findall(r"^ *def (test_\w+)|^(Test\w+) = ", path.read_text(), re.MULTILINE):
                self._homes.setdefault("".join(name), []).append(str(path.relative_to(root)))

    def place(self, mutant: Mutant) -> Place:
        """Raises Wrong where that is not one place."""
        found = {name: text.count(mutant.old) for name, text in self._modules.items() if mutant.old in text}
        if sum(found.values()) != 1:
            where = ", ".join(f"{number} in {name}" for name, number in found.items()) or "nowhere"
            raise Wrong(f"line {mutant.line}: the old text must be there once, and is {where}: {mutant.old}")
        (file,) = found
        line = self._modules[file].partition(mutant.old)[0].count("\n") + 1
        return Place(file, line, tuple(map(self._test, mutant.tests)))

    def _test(self, name: str) -> str:
        homes = self._homes.get(name, [])
        if len(homes) != 1:
            raise Wrong(f"{name}: a test's name must be there once, and is in {' '.join(homes) or 'no file'}")
        return f"{homes[0]}::{name}"


# --- running ----------------------------------------------------------------------------------------------------------


def warm_up() -> None:
    """Import what every run needs and no change changes; settings that make each run the same."""
    import hypothesis.stateful

    for name in ("IPy", "click", "pyte", "wcwidth", "maxminddb", "mmdb_writer", "blessed"):
        try:
            __import__(name)
        except ImportError:
            pass
    hypothesis.settings.register_profile(
        PROFILE,
        derandomize=True,
        database=None,
        deadline=None,
        max_examples=100,
        phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate],  # which example it is matters to nobody
        suppress_health_check=list(hypothesis.HealthCheck),
    )


def start(folder: Path, tests: Sequence[str], options: Sequence[str] = OPTIONS, bound: int = BOUND) -> int:
    """Run tests in a fork of this process; its pid. What they print is in ``folder``/../output."""
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        return pid
    status = 3
    try:
        os.setpgid(0, 0)
        signal.alarm(bound)  # nobody handles it: it ends the process
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        out = os.open(folder.with_suffix(".out"), os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
        os.dup2(out, 1)
        os.dup2(out, 2)
        os.chdir(folder)
        sys.path[0] = str(folder)
        sys.dont_write_bytecode = True
        status = pytest.main([*options, *tests])
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(status)


def finish(pid: int, status: int) -> int:
    """The result of a run that has ended, as subprocess has it; what it left running is ended, too."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    return os.waitstatus_to_exitcode(status)


@contextmanager
def changed(folder: Path, file: str, old: str, new: str) -> Iterator[None]:
    """The program in ``folder`` with one change."""
    path = folder / file
    text = path.read_text()
    path.write_text(text.replace(old, new))
    for cached in (folder / "__pycache__").glob(f"{path.stem}.*"):
        cached.unlink()
    try:
        yield
    finally:
        path.write_text(text)


def copies(number: int, under: Path) -> list[Path]:
    """Copies of the checkout, compiled."""
    folders = [under / str(i) for i in range(number)]
    for folder in folders:
        shutil.copytree(ROOT, folder, ignore=LEFT_OUT, symlinks=True)
        compileall.compile_dir(folder, quiet=1, maxlevels=0)
    return folders


def run_all(jobs: Sequence[tuple[Mutant, Place]], folders: Sequence[Path], tell: Callable[..., None]) -> None:
    """Run the tests of every change, in all folders at once; ``tell`` gets each change with its result."""
    free, left = list(folders), list(reversed(jobs))
    running: dict[int, tuple[Mutant, Place, Path, ExitStack, float]] = {}
    while left or running:
        while left and free:
            mutant, place = left.pop()
            change = ExitStack()
            change.enter_context(changed(folder := free.pop(), place.file, mutant.old, mutant.new))
            running[start(folder, place.tests)] = mutant, place, folder, change, time.monotonic()
        pid, status = os.wait()
        mutant, place, folder, change, began = running.pop(pid)
        result = finish(pid, status)
        change.close()
        free.append(folder)
        tell(mutant, place, result, time.monotonic() - began, folder.with_suffix(".out"))


class Report:
    """What came of the changes, told as they are tried."""

    def __init__(self) -> None:
        self.noticed = 0
        self.missed: list[str] = []

    def wrong(self, why: str) -> None:
        print(f"WRONG        {why}", flush=True)
        self.missed.append(why)

    def __call__(self, mutant: Mutant, place: Place, result: int, seconds: float, output: Path) -> None:
        where = f"{place.file}:{place.line}: {mutant.feels}"
        if result in FAILED or result < 0:
            how = "noticed" if result > 0 else "hung" if result == HANGS else f"signal {-result}"
            print(f"{how:<8} {seconds:3.1f} {where}", flush=True)
            self.noticed += 1
        elif result in NO_SUCH_TEST:
            self.wrong(f"{where}\n{output.read_text()}")
        else:
            print(f"NOT NOTICED  {where}\n- {mutant.old}\n+ {mutant.new}\n! {' '.join(mutant.tests)}", flush=True)
            self.missed.append(where)


def chosen(mutants: list[Mutant], options: argparse.Namespace) -> list[Mutant]:
    """Those that the command line asks for."""
    word = options.k.lower()
    found = [m for m in mutants if word in " ".join((m.feels, m.old, *m.tests)).lower()]
    if options.part:
        part, of = map(int, options.part.split("/"))
        found = found[part - 1 :: of]
    if options.sample:
        found = found[:: max(1, len(found) // options.sample)][: options.sample]
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("-k", default="", metavar="WORD", help="those with it in their sentence, old text or test")
    parser.add_argument("--part", default="", metavar="N/M", help="the Nth of M parts")
    parser.add_argument("--sample", type=int, default=0, metavar="N", help="only so many, from everywhere in the list")
    options = parser.parse_args()
    report, checkout, jobs, began = Report(), Checkout(ROOT), [], time.monotonic()
    for mutant in chosen(read((ROOT / "tests" / "mutants.txt").read_text()), options):
        try:
            jobs.append((mutant, checkout.place(mutant)))
        except Wrong as error:
            report.wrong(str(error))
    warm_up()
    with tempfile.TemporaryDirectory(prefix="mutants-") as under:
        folders = copies(AT_ONCE, Path(under))
        tests = sorted({test for _, place in jobs for test in place.tests})
        if tests and finish(*os.waitpid(start(folders[0], tests, bound=10 * BOUND), 0)):
            print(folders[0].with_suffix(".out").read_text(), "the tests fail without any change", sep="\n")
            return 1
        run_all(jobs, folders, report)
    print(f"{report.noticed} of {report.noticed + len(report.missed)} noticed, {time.monotonic() - began:.0f} s")
    return 1 if report.missed or not report.noticed else 0


if __name__ == "__main__":
    sys.exit(main())
