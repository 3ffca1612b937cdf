#!/usr/bin/env python3
"""Conntrack Monitor: who talks to whom through this machine, how much, and is the connection table healthy?

The command line and its exit codes: 0 success, 1 conntrack failed, 2 wrong usage, 3 not permitted, 4 conntrack not
found. What a run needs is imported when it needs it: --help must not wait for a terminal library.
"""

from __future__ import annotations

import sys

PROGRAM = "conntrack-monitor"

# Standard modules that are not in OpenWrt's python3-light, and the packages that have them: python3- and this.
_APART = (
    "asyncio",
    "ctypes",
    "decimal",
    "email",
    "logging",
    "lzma",
    "multiprocessing",
    "sqlite3",
    "unittest",
    "urllib",
)
_OPENWRT = {
    **{name: name for name in (*_APART, "uuid", "xml")},
    **{"unicodedata": "codecs", "ssl": "openssl", "curses": "ncurses", "doctest": "pydoc", "pydoc": "pydoc"},
}


def lacking(error: ImportError) -> str:
    """What to install, where a module is not there. It stands before the imports, for any of them may fail.

    >>> print(lacking(ModuleNotFoundError(name="_ssl")))
    the Python module ssl is missing; it is in the package python3-openssl (OpenWrt) or python3 (Debian)
    """
    name = (error.name or "?").partition(".")[0]
    if name.lstrip("_") in sys.stdlib_module_names:
        name = name.lstrip("_")
    if name not in sys.stdlib_module_names:
        return f"the Python package {name} is not installed; try: pip install -r requirements.txt"
    package = _OPENWRT.get(name, "light")
    return f"the Python module {name} is missing; it is in the package python3-{package} (OpenWrt) or python3 (Debian)"


try:
    import contextlib
    import os
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import TYPE_CHECKING, Any, NoReturn, cast

    import click

    from vocabulary import EVENT_NAMES, FIELDS, NAME_SOURCES, USUAL_NAMES, VIEW_NAMES
except ModuleNotFoundError as error:
    sys.exit(f"{PROGRAM}: {lacking(error)}")

if TYPE_CHECKING:
    from click._termui_impl import ProgressBar
    from click.shell_completion import CompletionItem

    from addresses import Site
    from collectors import ExportPlan
    from config import Machine, Settings
    from download import FetchProgress
    from flowlog import LogPlan
    from geography import Plan
    from live import Live
    from run import CommandLine, Headless, MetricsPlan, Once, Options, Stream
    from source import OwnContainer, Source

VERSION = "0.1.0"
AGENT = f"{PROGRAM}/{VERSION} (+https://github.com/0xf00f00/conntrack-monitor)"

# --- how this program is called ---------------------------------------------------------------------------------------


def invocation() -> str:
    """The words that start this program from the folder it was started in.

    CONNTRACK_MONITOR_CALLED in place of them: in a container nobody has a shell to type at, so its compose file says
    what does it from outside. Without that file its engine's words.
    """
    from text import clean

    if given := os.environ.get("CONNTRACK_MONITOR_CALLED"):
        return clean(given)
    if (inside := _around_us()) and inside.name:
        return f"{inside.engine} exec {inside.name} {PROGRAM}"
    try:
        return clean(_typed_words(sys.argv[0], os.getcwd()))
    except OSError:  # the folder has gone
        return clean(os.path.basename(sys.argv[0]))


def _around_us() -> OwnContainer | None:
    if "CONNTRACK_MONITOR_IMAGE" not in os.environ:  # nearly always: no import
        return None
    from source import own_container

    return own_container()


def _typed_words(name: str, here: str) -> str:
    import shlex

    path = os.path.realpath(name)
    short = os.path.basename(name)
    if any(os.path.realpath(os.path.join(place, short)) == path for place in os.get_exec_path() if place):
        return shlex.quote(short)
    typed = name if "/" in name else f"./{name}"
    if path.endswith(".py") and sys.prefix != sys.base_prefix:  # of a checkout: only this Python has the packages
        python = sys.executable.removeprefix(f"{here}/")
        return f"{shlex.quote(python)} {shlex.quote(name)}"
    return shlex.quote(typed) if os.access(path, os.X_OK) else f"python3 {shlex.quote(name)}"


# --- --update-geoip ---------------------------------------------------------------------------------------------------


def fetch(plan: Plan, worker: str) -> int:
    """Fetch the databases; returns the exit code. ``worker``: which, with progress for the screen."""
    import signal

    import geography
    from download import NAMES
    from run import say, unblock

    def stop(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt  # takes the unfinished file away

    signal.signal(signal.SIGTERM, stop)
    unblock()
    if worker:
        return geography.work(plan, worker)
    with _Bar() as bar:
        outcomes = geography.update_now(plan, bar.tell)
    for outcome in outcomes:
        say(f"{NAMES[outcome.kind]} not fetched: {outcome.why}" if outcome.why else outcome.message)
    return 0 if all(outcome.status in ("installed", "current") for outcome in outcomes) else 1


class _Bar:
    """click's progress bar on standard error, a new one for each file; nothing where that is no terminal."""

    def __init__(self) -> None:
        self._name = ""
        self._bar: ProgressBar[int] | None = None

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.render_finish()

    def tell(self, progress: FetchProgress) -> None:
        if not sys.stderr.isatty():
            return
        if self._bar is None or progress.name != self._name:
            self.__exit__()
            self._name = progress.name
            self._bar = click.progressbar(length=progress.total or 0, label=progress.name, file=sys.stderr)
        self._bar.update(progress.received - self._bar.pos)


# --- the flow log -----------------------------------------------------------------------------------------------------


def _collect_seldom(never: bool = False) -> None:
    """Have garbage looked for seldom: 262,144 flows are none, and to look at them takes longer than the parser does.

    What the flow log's writer remembers of 50,000 hosts is none either: that took a fifth of its time. ``never``: a
    run that ends with its first table.
    """
    import gc

    gc.freeze()
    gc.set_threshold(0 if never else 200_000, 20, 50)


MMAP_THRESHOLD, LARGE_BLOCK = -3, 1 << 20  # malloc.h: M_MMAP_THRESHOLD; bytes


def _give_back_large_blocks() -> None:
    """Have the C library give large blocks back to the kernel as soon as they are free.

    glibc keeps those that are smaller than the largest one that was ever freed, up to 32 MiB: after a few listings and
    orders of 200,000 flows that was 70 bytes a flow.
    """
    try:
        import ctypes

        ctypes.CDLL(None).mallopt(MMAP_THRESHOLD, LARGE_BLOCK)
    except (ImportError, OSError, AttributeError):  # another C library, or this Python has no ctypes
        pass


def write_log(folder: str) -> int:
    """Be the process that writes the flow log; returns the exit code."""
    from flowlog import serve

    _collect_seldom()
    return serve(folder)


def ask_log(folder: str, search: str) -> int:
    """Answer what the screen asks the log: what its NAT view searches, or what was known; returns the exit code."""
    from run import answer_search, tell_known

    return answer_search(folder, search) if search else tell_known(folder)


def who_had(options: CommandLine) -> int:
    """Answer --who; returns the exit code."""
    import time

    from past import Question, asked_of, time_of
    from run import ask

    if options["who"] is None or not options["log"]:
        missing = "--at requires --who." if options["who"] is None else "--who needs a flow log: use --log DIR."
        raise click.UsageError(missing)
    format = _format(options)
    now, option = time.time(), "--who"
    try:
        asked = asked_of(options["who"])
        option = "--at"
        begins, length = time_of(options["at"], now) if options["at"] is not None else (now, 1.0)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint=f"'{option}'") from None
    return ask(options["log"], Question(*asked, begins, length), format, invocation())


def _format(options: CommandLine) -> str:
    """``export``'s word for the format that is asked for."""
    if options["as_json"] and options["as_csv"]:
        raise click.UsageError("--json and --csv can't be combined.")
    return "json" if options["as_json"] else "csv" if options["as_csv"] else "text"


def usage_of(options: CommandLine) -> int:
    """Print the flow log's usage; returns the exit code."""
    import time

    from columns import VIEW_BY_NAME
    from past import near_of, since_of
    from run import UsageAsked, print_usage

    if not options["log"]:
        raise click.UsageError("--view usage needs a flow log: use --log DIR.")
    try:
        near, since = near_of(options["expression"] or ""), since_of(options["since"] or DAY_SPAN, time.time())
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    format = _format(options)
    sort = options["sort"] or VIEW_BY_NAME[options["view"]].sort
    asked = UsageAsked(
        *(options["log"], options["view"], since, near, sort, options["reverse"], options["limit"], format)
    )
    return print_usage(asked, invocation())


DAY_SPAN = "24h"  # of usage, where nobody says --since


def _log_plan(ctx: click.Context, options: CommandLine) -> LogPlan | None:
    """What is to be logged; a log from the settings or the environment is not for runs that only look."""
    if not options["log"] or options["once"] or options["replay"] is not None:
        if options["log"] and _is_typed(ctx, "log"):
            raise click.UsageError("--log records live traffic: it can't be combined with --once or --replay.")
        return None
    from flowlog import LogPlan

    return LogPlan(options["log"], options["log_keep"], options["log_size"])


# --- IPFIX ------------------------------------------------------------------------------------------------------------


def _export_plan(ctx: click.Context, options: CommandLine) -> ExportPlan | None:
    """Where flow records go; collectors from the settings or the environment are not for runs that only look."""
    if not options["ipfix"] or options["once"]:
        if options["ipfix"] and _is_typed(ctx, "ipfix"):
            raise click.UsageError("--ipfix sends what happens: it can't be combined with --once.")
        if any(_is_typed(ctx, name) for name in ("ipfix_only", "ipfix_nat_event")):
            raise click.UsageError("--ipfix-only and --ipfix-nat-event require --ipfix.")
        return None
    from collectors import ExportPlan, destination

    try:
        to = [destination(text) for text in dict.fromkeys(options["ipfix"])]
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="'--ipfix'") from None
    only = options["ipfix_only"]
    return ExportPlan(to, only != "flows", only != "nat", options["ipfix_nat_event"] == "legacy")


# --- metrics ----------------------------------------------------------------------------------------------------------


_OF_A_TABLE = ("as_json", "as_csv", "by", "view", "limit", "expression", "state")  # say what --once prints


def _check_metrics(ctx: click.Context, options: CommandLine) -> None:
    if options["metrics"] == "-" and not options["once"]:
        raise click.UsageError("--metrics - requires --once; without it, name a file.")
    if not _is_typed(ctx, "metrics"):
        return
    if options["replay"] is not None and not options["once"]:
        raise click.UsageError("--metrics measures live traffic: with --replay it requires --once.")
    if options["once"] and any(_is_typed(ctx, name) for name in _OF_A_TABLE):
        raise click.UsageError(
            "--once --metrics is about the whole table and does not print it: "
            "it can't be combined with --json, --csv, --by, --view, --limit, -f or -s."
        )


def _metrics_plan(ctx: click.Context, options: CommandLine) -> MetricsPlan | None:
    """Where metrics are to be written; those of the settings or the environment are not for runs that only look."""
    path, looks = options["metrics"], options["once"] or options["replay"] is not None
    if not path or (looks and not _is_typed(ctx, "metrics")):
        return None
    from run import MetricsPlan

    return MetricsPlan(path, VERSION)


# --- running ----------------------------------------------------------------------------------------------------------

_KEPT: list[
    Live | Once | Stream | Headless
] = []  # what ran, until the process ends: to free its 200,000 flows takes 0.1 s


def run_program(options: Options) -> int:
    """Run as the options say; returns the exit code."""
    from recording import Recorder
    from run import Signals, say

    _collect_seldom(never=options.once)
    if not options.once:
        _give_back_large_blocks()
    way = _way(options)
    try:
        recorder = Recorder(options.record) if options.record else None
    except OSError as error:
        raise click.BadParameter(
            f"'{options.record}' can't be written: {error.strerror}", param_hint="'--record'"
        ) from None
    if options.settings_problem and (options.once or options.format != "text"):  # the screen has a place for it
        say(options.settings_problem)
    with Signals() as signals:
        source = options.source()
        try:
            runner = way(options, source, signals, recorder)
            _KEPT.append(runner)
            return runner.run()
        finally:
            source.close()
            if recorder:
                recorder.close()
                if words := recorder.complaint():
                    say(words)


def _way(options: Options) -> type[Live | Once | Stream | Headless]:
    """Only what is needed is imported: what the screen needs takes 70 ms."""
    if options.once:
        from run import Once

        return Once
    if options.headless:
        from run import Headless

        return Headless
    if options.format == "text":
        from live import Live

        return Live
    from run import Stream

    return Stream


# --- the command ------------------------------------------------------------------------------------------------------


class Finite(click.FloatRange):
    """A number within bounds that is a number: "nan" fits between all bounds."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number = float(super().convert(value, param, ctx))
        if number != number:
            self.fail(f"{value!r} is not a number.", param, ctx)
        return number


class Size(click.ParamType[int]):
    """A number of bytes: 500M, 2G; k, M, G, T are thousands, with an i behind they are binary."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        import re

        from filters import SIZES

        match = re.fullmatch(r"(\d{1,15}(?:\.\d+)?)([a-z]{0,2}?)b?", str(value).lower())
        if match is None or match.group(2) not in SIZES:
            self.fail(f"{value!r} is not a size; write it like 500M, 2G or 1.5Gi.", param, ctx)
        size = int(float(match.group(1)) * SIZES[match.group(2)])
        if size < LEAST_LOG:
            self.fail(f"{value!r} is too small: a log needs at least {LEAST_LOG // 1_000_000}M.", param, ctx)
        return size


LEAST_LOG = 1_000_000  # bytes: 10,000 flows


class NameSources(click.ParamType[tuple[str, ...]]):
    """Where names of hosts are read: words with commas between them, or `none`."""

    name = "sources"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        if isinstance(value, tuple):
            return value
        words = [word for word in str(value).lower().replace(",", " ").split() if word != "none"]
        for word in words:
            if word not in NAME_SOURCES:
                self.fail(f"{word!r} is not a source of names; valid: {', '.join(NAME_SOURCES)}, none.", param, ctx)
        return tuple(dict.fromkeys(words))


class NodeName(click.ParamType[str]):
    """A machine's name, as it stands in each line."""

    name = "name"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        from addresses import LONGEST_NODE
        from config import is_node_name

        text = str(value).strip()
        if not is_node_name(text):
            self.fail(f"{value!r} is not a name for a node: at most {LONGEST_NODE} printable characters.", param, ctx)
        return text


class Via(click.ParamType[str]):
    """The way to a machine. In the environment it is one: words of a command may have anything between them."""

    name = "command"

    def split_envvar_value(self, rv: str) -> list[str]:
        return [rv]


class Events(click.ParamType[frozenset[str]]):
    """Kinds of events: words with commas between them."""

    name = "events"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> frozenset[str]:
        if isinstance(value, frozenset):
            return value
        words = str(value).lower().replace(",", " ").split()
        if str(value) and not words:
            self.fail(f"it names no event; valid: {', '.join(EVENT_NAMES)}.", param, ctx)
        for word in words:
            if word not in EVENT_NAMES:
                from filters import or_close

                self.fail(f"{word!r} is not an event{or_close(word, EVENT_NAMES)}", param, ctx)
        return frozenset(words)


class SortColumn(click.ParamType[str]):
    """A column's name, in any case, or one of the other words people use for it."""

    name = "column"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        from columns import ALIASES, KEY_SORTS, VIEWS

        name = str(value).lower()
        other = ALIASES.get(name, name)
        if name not in KEY_SORTS and all(name not in kind.sorts and other not in kind.sorts for kind in VIEWS):
            everywhere = dict.fromkeys(column for kind in VIEWS for column in kind.sorts)
            self.fail(f"{value!r} is not a column; valid: {', '.join(everywhere)}.", param, ctx)
        return name


@contextlib.contextmanager
def _harmless() -> Iterator[None]:
    """Errors that repeat a word do not steer the terminal: a file's name that the shell completed may be anybody's."""
    try:
        yield
    except click.ClickException as error:
        from text import printable

        vars(error)["message"] = "\n".join(map(printable, error.message.split("\n")))
        raise


class Harmless(click.Command):
    """A command with harmless errors."""

    def make_context(self, *args: Any, **more: Any) -> click.Context:
        with _harmless():
            return super().make_context(*args, **more)

    def invoke(self, ctx: click.Context) -> Any:
        with _harmless():
            return super().invoke(ctx)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not ctx.resilient_parsing:
            _refuse_twice(self.make_parser(ctx).parse_args(list(args))[2], ctx)
        return super().parse_args(ctx, args)


def _refuse_twice(given: Sequence[click.Parameter], ctx: click.Context) -> None:
    """An option of one value that is given twice: click takes the last one, and nobody hears of the first.

    ``given``: the parameters in the order of the words that they came with.
    """
    for parameter in dict.fromkeys(given):
        takes_one = isinstance(parameter, click.Option) and not (parameter.multiple or parameter.is_flag)
        if takes_one and given.count(parameter) > 1:
            more = " For several conditions, use one quoted filter." if parameter.name == "expression" else ""
            raise click.UsageError(f"{parameter.get_error_hint(ctx)} is given twice; it takes one value.{more}", ctx)


def _print_version(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    """Also names the publishers of the databases in use, as their licences ask."""
    if value and not ctx.resilient_parsing:
        from geoip import attributions_of_files, search_paths

        click.echo(f"{PROGRAM} {_release()}")
        for line in attributions_of_files(search_paths((), os.environ)):
            click.echo(line)
        ctx.exit()


def _release() -> str:
    """The version; of the one file, also the commit that it was built from."""
    import importlib

    try:
        return f"{VERSION} (commit {importlib.import_module('built_from').COMMIT})"
    except ModuleNotFoundError:
        return VERSION


def _print_man(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from manual import manual_page

        click.echo(manual_page(ctx, PROGRAM, _release(), FILTERS, NOTES), nl=False)
        ctx.exit()


def _print_completion(ctx: click.Context, _param: click.Parameter, shell: str | None) -> None:
    if shell and not ctx.resilient_parsing:
        from manual import completion_script

        click.echo(completion_script(ctx.command, shell, PROGRAM))
        ctx.exit()


def _read_settings(ctx: click.Context, _param: click.Parameter, without: bool) -> None:
    """Eager, so that it comes before all options that the file may set, and after --help, which needs none."""
    if not (without or ctx.resilient_parsing):
        import config

        ctx.obj = config.load_settings(ctx, os.environ)
        ctx.default_map = ctx.obj.options


def _completes(what: str) -> Callable[..., list[CompletionItem]]:
    """What the shell offers for an option's value: "file", or one of the lists in ``manual.completions``."""

    def offer(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        from manual import completions

        return completions(what, incomplete)

    return offer


# What help and manual page say beside the options.
FILTERS = "words are ANDed; or, not, ! and parentheses work; a bare word searches everything shown."
NOTES = {
    "Exit status": "0 success, 1 conntrack failed, 2 wrong usage, 3 not permitted, 4 conntrack not found.",
    "Environment": "Every option can be set as CONNTRACK_MONITOR_<OPTION>.",
    "Settings": '~/.config/conntrack-monitor/config.toml sets options by their long names (sort = "bytes"), names '
    "marks and zones, adds local networks, and has rules for alerts ([[alert]]). "
    "Options override the environment, which overrides the file.",
    "Geography": "IP Geolocation by DB-IP (https://db-ip.com), CC BY 4.0, downloaded if there is no database; "
    "GeoLite2 data created by MaxMind, available from https://www.maxmind.com, if you install it.",
}


@click.command(
    cls=Harmless,
    context_settings={"auto_envvar_prefix": "CONNTRACK_MONITOR", "help_option_names": ["-h", "--help"]},
    epilog=f"Filter: {' '.join(field.term for field in FIELDS)}; {FILTERS} "
    + " ".join(f"{head}: {text}" for head, text in NOTES.items()),
)
@click.option(
    *("-p", "--protocol"),
    multiple=True,
    metavar="NAME",
    shell_complete=_completes("protocol"),
    help="Only this protocol (name or number); repeatable.",
)
@click.option(
    *("-s", "--state"),
    multiple=True,
    metavar="STATE",
    shell_complete=_completes("state"),
    help="Only this state, or ASSURED, UNREPLIED; repeatable.",
)
@click.option("-4", "--ipv4", is_flag=True, help="Only IPv4.")
@click.option("-6", "--ipv6", is_flag=True, help="Only IPv6.")
@click.option(
    *("-f", "--filter", "expression"),
    metavar="EXPR",
    show_envvar=False,
    shell_complete=_completes("filter"),
    help="Filter expression (see below).",
)
@click.option(
    "--sort",
    type=SortColumn(),
    shell_complete=_completes("sort"),
    help="Sort by this column [rate; bytes with --once without --sample].",
)
@click.option("--reverse", is_flag=True, help="Reverse the sort order.")
@click.option("--view", type=click.Choice(VIEW_NAMES), default="connections", show_default=True, help="What to show.")
@click.option(
    "--history",
    type=click.IntRange(0, 1_000_000),
    default=10_000,
    show_default=True,
    metavar="N",
    help="Closed flows kept for the NAT view.",
)
@click.option("--interval", type=Finite(0.2, 3600), default=2.0, show_default=True, help="Seconds between listings.")
@click.option(
    "--linger", type=Finite(0, 3600), default=5.0, show_default=True, help="Seconds that closed flows stay visible."
)
@click.option("--no-color", is_flag=True, help="No colours (NO_COLOR in the environment does the same).")
@click.option("--no-mouse", is_flag=True, help="Leave the mouse to the terminal, to select text without Shift.")
@click.option("--once", is_flag=True, help="Print the table once, as text, and exit.")
@click.option("--json", "as_json", is_flag=True, help="JSON lines: one per flow with --once, otherwise one per event.")
@click.option("--csv", "as_csv", is_flag=True, help="The same as CSV, with a header line.")
@click.option("--limit", type=click.IntRange(min=0), metavar="N", help="With --once: at most N rows.")
@click.option(
    "--sample",
    type=Finite(0.2, 3600),
    metavar="SECONDS",
    help="With --once: list twice, SECONDS apart, to measure rates.",
)
@click.option(
    "--via",
    multiple=True,
    type=Via(),
    metavar="[NAME=]COMMAND",
    help='Prefix for every command that is run, e.g. "ssh root@router"; repeatable, for several machines.',
)
@click.option("--by", metavar="KEYS", help="With --once: one row per combination, e.g. near/24,service,state.")
@click.option(
    "--conntrack",
    default="conntrack",
    show_default=True,
    metavar="PATH",
    shell_complete=_completes("file"),
    help="The conntrack program.",
)
@click.option(
    "--replay",
    metavar="FILE",
    shell_complete=_completes("file"),
    help="Read FILE ('-' for stdin) instead of running conntrack.",
)
@click.option(
    "--node",
    type=NodeName(),
    default="",
    metavar="NAME",
    help="This machine's name in JSON, CSV and log [host name]; with --replay: whose lines to read.",
)
@click.option(
    "--only",
    type=Events(),
    default="",
    metavar="EVENTS",
    shell_complete=_completes("events"),
    help="With a --json or --csv stream: only these events, e.g. new,destroy.",
)
@click.option("--demo", is_flag=True, help="Play the bundled recording.")
@click.option(
    "--speed", type=Finite(0, 1e6), default=1.0, show_default=True, help="Replay speed factor; 0: as fast as possible."
)
@click.option(
    "--record",
    metavar="FILE",
    shell_complete=_completes("file"),
    help="Also record all input to FILE, for --replay.",
)
@click.option(
    "--log",
    metavar="DIR",
    shell_complete=_completes("file"),
    help="Keep a flow log in DIR, for --who and usage.",
)
@click.option(
    "--log-keep",
    type=Finite(1, 36_500),
    default=30.0,
    show_default=True,
    metavar="DAYS",
    help="Days to keep in the log.",
)
@click.option(
    "--log-size",
    type=Size(),
    default="2G",
    show_default=True,
    metavar="SIZE",
    help="Maximum log size; oldest days go first.",
)
@click.option(
    "--metrics",
    metavar="FILE",
    shell_complete=_completes("file"),
    help="Write metrics for Prometheus to FILE every 15 s; with --once, '-' prints them.",
)
@click.option(
    "--names",
    type=NameSources(),
    default=",".join(USUAL_NAMES),
    metavar="SOURCES",
    shell_complete=_completes("names"),
    help="Sources of host names: leases,neighbours,containers,wireguard,hosts,processes [all of "
    "these]; also crictl, kubectl, dns (key N); none.",
)
@click.option(
    "--headless",
    is_flag=True,
    help="No screen and no output, for --log, --ipfix, --metrics, alerts; until SIGTERM, Ctrl+C.",
)
@click.option(
    "--ipfix",
    multiple=True,
    metavar="HOST:PORT",
    help="Send IPFIX there by UDP; HOST:PORT/tcp: by TCP; repeatable.",
)
@click.option("--ipfix-only", type=click.Choice(["nat", "flows"]), help="Send only NAT events, or only flows.")
@click.option(
    "--ipfix-nat-event",
    type=click.Choice(["rfc8158", "legacy"]),
    default="rfc8158",
    show_default=True,
    help="Numbers of NAT events; legacy: for nfdump before 1.7.3.",
)
@click.option("--who", metavar="ADDR[:PORT]", help="Show from the log who had this address (and port).")
@click.option("--at", metavar="TIME", help="With --who: 2026-11-24T14:02:30, with or without a zone, or 14:02.")
@click.option("--since", metavar="SPAN", help=f"With --view usage: 7d, 12h, or a TIME [{DAY_SPAN}].")
@click.option(
    "--geoip-db",
    multiple=True,
    metavar="PATH",
    shell_complete=_completes("file"),
    help="Database file or folder; repeatable [GEOIP_DB_PATHS].",
)
@click.option("--no-download", is_flag=True, help="Never contact the databases' publisher.")
@click.option("--update-geoip", is_flag=True, help="Fetch the databases now and exit.")
@click.option("--allow-delete", is_flag=True, help="Let x delete entries from the kernel's table (asks first).")
@click.option(
    "--no-config",
    is_flag=True,
    callback=_read_settings,
    expose_value=False,
    is_eager=True,
    help="Do not read the settings file.",
)
@click.option("--geoip-worker", default="", hidden=True)
@click.option("--log-writer", default="", hidden=True)
@click.option("--log-search", default="", hidden=True)
@click.option("--log-first", is_flag=True, hidden=True)
@click.option("--heartbeat", default="", hidden=True)  # for the health check of a container
@click.option(
    "--print-completion",
    type=click.Choice(["bash", "zsh", "fish"]),
    metavar="SHELL",
    callback=_print_completion,
    expose_value=False,
    is_eager=True,
    help="Print the completion script for bash, zsh or fish.",
)
@click.option(
    "--print-man",
    is_flag=True,
    callback=_print_man,
    expose_value=False,
    is_eager=True,
    help="Print the manual page, for man -l.",
)
@click.option(
    "--version", is_flag=True, callback=_print_version, expose_value=False, is_eager=True, help="Print the version."
)
@click.pass_context
def command(ctx: click.Context, /, **given: object) -> None:
    """Watch the kernel's connection table: live on the screen, or as text, JSON or CSV."""
    options = cast("CommandLine", given)
    if options["demo"]:
        if options["replay"] is not None:
            raise click.UsageError("--demo and --replay can't be combined.")
        options["replay"] = DEMO
    # --update-geoip is meant more than what is meant for every day.
    if options["update_geoip"] and options["no_download"] and _is_typed(ctx, "no_download"):
        raise click.UsageError("--update-geoip and --no-download can't be combined.")
    if options["geoip_worker"] or options["update_geoip"]:
        if ctx.obj and ctx.obj.problem:
            click.echo(f"{PROGRAM}: {ctx.obj.problem}", err=True)
        ctx.exit(_guarded(lambda: fetch(_plan(ctx, options), options["geoip_worker"])))
    if options["log_writer"]:
        ctx.exit(_guarded(lambda: write_log(options["log_writer"])))
    if options["log_search"] or options["log_first"]:
        ctx.exit(_guarded(lambda: ask_log(options["log"] or "", options["log_search"])))
    if options["who"] is not None or options["at"] is not None:
        ctx.exit(_guarded(lambda: who_had(options)))
    if options["once"] and options["view"].startswith("usage"):
        _check_combinations(ctx, options)
        ctx.exit(_guarded(lambda: usage_of(options)))
    ctx.exit(_guarded(lambda: run_program(_checked_options(ctx, options))))


# The variable is named as the option is, also where the parameter's name is another one.
for _parameter in command.params:
    for _long in (name[2:] for name in _parameter.opts if name.startswith("--")):
        if isinstance(_parameter, click.Option) and _parameter.name != _long.replace("-", "_"):
            _parameter.envvar = f"CONNTRACK_MONITOR_{_long.replace('-', '_').upper()}"


GEOIP_VOLUME = "conntrack-monitor_geoip-data:/usr/share/GeoIP"  # as docker run takes it; the image's own place


def _plan(ctx: click.Context, options: CommandLine) -> Plan:
    """Where databases are; the command that fetches them puts them where this run looks for them."""
    import shlex

    from download import DEFAULT_URL
    from geography import Plan
    from geoip import search_paths

    base_url = os.environ.get("CONNTRACK_MONITOR_GEOIP_URL") or DEFAULT_URL
    paths = tuple(search_paths(options["geoip_db"], os.environ))
    container, given = _around_us(), "CONNTRACK_MONITOR_CALLED" in os.environ
    called, inside = invocation(), given or container is not None
    if _is_sudo() and not inside:  # root's cache is not the caller's
        called = f"sudo {called}"
    command = f"{called} {shlex.join(['--update-geoip', *_looked_for(ctx, paths, inside)])}"
    if container and not given and options["once"]:  # it has gone when that is read
        command = f"{container.runs('--rm', '-v', GEOIP_VOLUME)} --update-geoip, then -v {GEOIP_VOLUME} here, too"
    return Plan(paths, not options["no_download"], base_url, AGENT, command=command)


def _looked_for(ctx: click.Context, paths: Sequence[str], inside: bool) -> list[str]:
    """The options that make a run look for databases where this one does, in a shell that knows nothing of it.

    The settings file speaks for itself, and so does the environment of a container (``inside``).
    """
    typed, in_file = click.core.ParameterSource.COMMANDLINE, click.core.ParameterSource.DEFAULT_MAP
    words = ["--no-config"] if ctx.obj is None and not inside else []
    source = ctx.get_parameter_source("geoip_db")
    named = bool(ctx.params.get("geoip_db")) or bool(os.environ.get("GEOIP_DB_PATHS"))
    if named and source is not in_file and (source is typed or not inside):
        from text import printable

        # Our own folder, the last one, is always looked at. A name with control characters can't be typed as shown.
        folders = [os.path.abspath(path) for path in paths[:-1]]
        words += [word for path in folders if printable(path) == path for word in ("--geoip-db", path)]
    return words


def _is_sudo() -> bool:
    return os.geteuid() == 0 and bool(os.environ.get("SUDO_UID"))


def _nodes(options: CommandLine) -> list[Machine]:
    """The machines whose tables are read, with their names: the given one, the host in an ssh command, or by asking."""
    import shlex

    from config import is_node_name, machines
    from source import host_names, node_of, ssh_host

    found = machines(options["via"], options["conntrack"])
    named = [its._replace(name=options["node"] or its.name or ssh_host(its.words)) for its in found]
    asked = [its for its in named if its.words and not its.name]
    answers = dict(zip((shlex.join(its.words) for its in asked), host_names([its.words for its in asked])))
    if len(found) > 1 and (silent := [way for way, name in answers.items() if not (name and is_node_name(name))]):
        raise click.UsageError(f"hostname gives no name by {silent[0]!r}; try: --via NAME=COMMAND.")
    names = [its.name or answers.get(shlex.join(its.words), "") for its in named]
    names = [name if name and is_node_name(name) else node_of(()) for name in names]
    for name in names:
        if names.count(name) > 1:
            raise click.UsageError(f"Two nodes are named {name!r}; try: --via NAME=COMMAND.")
    return [its._replace(name=name) for its, name in zip(named, names)]


def _before(words: Sequence[str]) -> list[str]:
    """The words that bring a command to the machine whose table is read, with the right to change things there."""
    return ["sudo", *words] if _is_sudo() or (os.geteuid() != 0 and not words) else list(words)


def _families_of(options: CommandLine) -> list[str]:
    return ["ipv4"] * options["ipv4"] + ["ipv6"] * options["ipv6"]


def _checked_options(ctx: click.Context, options: CommandLine) -> Options:
    """The checked options, as the loop takes them."""
    from dataclasses import replace

    from config import Settings

    _check_combinations(ctx, options)
    settings = ctx.obj or Settings()
    _check_filters(options, _families_of(options), settings.site)
    if options["replay"] is not None:
        return _options(ctx, options, settings, {"source": _replay(options), "node": options["node"]})
    counters = settings.alerts is not None and settings.alerts.asks_counters()
    first, *others = (_reads(options, node, counters) for node in _nodes(options))
    made = _options(ctx, options, settings, first)
    return replace(made, others=[replace(made, **other) for other in others])


def _reads(options: CommandLine, node: Machine, counters: bool) -> dict[str, Any]:
    """Of ``Options`` what says which machine's table is read."""
    return {"source": _source(options, node, counters), "before": _before(node.words), "node": node.name}


def _options(ctx: click.Context, options: CommandLine, settings: Settings, reads: Mapping[str, Any]) -> Options:
    """``reads``: see ``_reads``."""
    from run import Options

    return Options(
        site=settings.site,
        **_shown(options),
        **reads,
        linger=options["linger"],
        once=options["once"],
        format=_format(options),
        limit=options["limit"],
        sample=options["sample"],
        record=options["record"],
        plan=_plan(ctx, options),
        view=options["view"],
        past=options["history"],
        allow_delete=options["allow_delete"],
        heartbeat=options["heartbeat"],
        settings_problem=settings.problem,
        starts_again=_starts_again() if options["heartbeat"] else "",
        log=_log_plan(ctx, options),
        metrics=_metrics_plan(ctx, options),
        alerts=None if options["once"] else settings.alerts,
        since=_since(options),
        by=options["by"] or "",
        only=options["only"],
        demo="" if options["heartbeat"] else f"{invocation()} --demo",
        **_tracking(),
        headless=options["headless"],
        ipfix=_export_plan(ctx, options),
        names=options["names"],
        asks_names=_is_given(ctx, "names"),
    )


def _tracking() -> dict[str, Any]:
    """Of ``Options`` why there may be no flow, where that is a container's doing."""
    inside = _around_us()
    found = inside.untracked() if inside else None
    return {"tracking": found} if found else {}


def _shown(options: CommandLine) -> dict[str, Any]:
    """Of ``Options`` what says which flows are shown, and how."""
    return {
        "protocols": options["protocol"],
        "states": options["state"],
        "families": _families_of(options),
        "expression": options["expression"] or "",
        "sort": options["sort"],
        "reverse": options["reverse"],
        "colour": not options["no_color"],
        "mouse": not options["no_mouse"],
    }


def _is_typed(ctx: click.Context, name: str) -> bool:
    """Did somebody give the option on the command line?"""
    return ctx.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE


def _is_given(ctx: click.Context, name: str) -> bool:
    """Did somebody give the option, on the command line, in the environment or in the settings?"""
    return ctx.get_parameter_source(name) is not click.core.ParameterSource.DEFAULT


RESTARTING = ("always", "unless-stopped")  # the policies that start a container again that ended with status 0


def _starts_again() -> str:
    """What to tell who quits in a container that is started again: nothing inside shows it, the compose file says it.

    Only of the container's own program, which has a heartbeat: `docker exec` starts others, and these do end.
    """
    from text import clean

    policy = os.environ.get("CONNTRACK_MONITOR_RESTART", "")
    stop = clean(os.environ.get("CONNTRACK_MONITOR_STOP") or "docker stop, and its name")
    again = f"The container starts again, by its restart policy {policy}. To stop it: {stop}"
    return again if policy in RESTARTING else ""


def _check_filters(options: CommandLine, families: Sequence[str], site: Site) -> None:
    """Find now what is wrong in them; the run makes its own, which know more."""
    from addresses import Context
    from filters import FilterError, compile_filter, from_flags

    context = Context(site=site)
    try:
        from_flags(options["protocol"], (), families, context)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="'-p'") from None
    try:
        from_flags((), options["state"], (), context)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="'-s'") from None
    try:
        compile_filter(options["expression"] or "", context)
    except FilterError as error:
        raise click.UsageError(f"Invalid filter: {error.pointed()}") from None


def _is_screen(options: CommandLine) -> bool:
    return not any(options[way] for way in ("once", "as_json", "as_csv", "headless"))


def _check_by(ctx: click.Context, options: CommandLine) -> None:
    """Wrong keys are found now."""
    if options["by"] is None:
        return
    if not options["once"]:
        raise click.UsageError("--by requires --once.")
    if _is_typed(ctx, "view"):
        raise click.UsageError("--by and --view can't be combined: each defines the rows.")
    from columns import by_view

    options["view"] = "connections"
    try:
        by_view(options["by"])
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="'--by'") from None


def _check_combinations(ctx: click.Context, options: CommandLine) -> None:
    if sys.stdout is None:
        raise click.UsageError("stdout is closed.")
    format = _format(options)
    _check_by(ctx, options)
    _check_sort(ctx, options)
    if options["view"] != "connections" and format != "text" and not options["once"]:
        raise click.UsageError("--json and --csv stream events; --view works with --once or on the screen.")
    if options["only"] and (format == "text" or options["once"]):
        raise click.UsageError("--only selects events of a stream: it requires --json or --csv, without --once.")
    if options["limit"] is not None and not options["once"]:
        raise click.UsageError("--limit requires --once.")
    if options["sample"] is not None and (options["replay"] is not None or not options["once"]):
        raise click.UsageError("--sample requires --once and can't be combined with --replay.")
    _check_names(ctx, options)
    _check_metrics(ctx, options)
    if options["headless"]:
        _check_headless(options, ctx.obj)
    if len(options["via"]) > 1:
        _check_nodes(options)
    if options["replay"] is not None and any(_is_typed(ctx, name) for name in ("via", "conntrack")):
        raise click.UsageError(
            "--replay reads a file and runs no command: it can't be combined with --via or --conntrack."
        )
    if _is_screen(options):
        _check_terminal()


INSTEAD_OF_SCREEN = "--once for a table, --json or --csv for a stream of events, --headless for a log."


def _check_terminal() -> None:
    """The screen needs one, and one whose cursor goes where it is told to."""
    if not sys.stdout.isatty():
        raise click.UsageError(f"stdout is not a terminal. Use {INSTEAD_OF_SCREEN}")
    kind = os.environ.get("TERM", "")
    if kind in ("", "dumb"):
        state = f"TERM is {kind}" if kind else "TERM is not set"
        raise click.UsageError(
            f"{state}: the screen can't place the cursor. Try TERM=xterm in front, or use {INSTEAD_OF_SCREEN}"
        )


def _since(options: CommandLine) -> str:
    """The span of usage, as it was typed; wrong words are found now."""
    import time

    from past import since_of

    if options["since"] is None:
        return DAY_SPAN
    if not options["view"].startswith("usage"):
        raise click.UsageError("--since requires --view usage.")
    try:
        since_of(options["since"], time.time())
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="'--since'") from None
    return options["since"]


def _check_names(ctx: click.Context, options: CommandLine) -> None:
    if "dns" in options["names"] and _is_typed(ctx, "names") and not _is_screen(options):
        raise click.UsageError("--names dns works only on the screen.")


def _check_nodes(options: CommandLine) -> None:
    """What holds where several machines are watched in one run."""
    if options["node"]:
        raise click.UsageError("--node names one machine; with several, try: --via NAME=COMMAND.")


def _check_headless(options: CommandLine, settings: Settings | None) -> None:
    if any(options[way] for way in ("once", "as_json", "as_csv")):
        raise click.UsageError(
            "--headless writes nothing to stdout: it can't be combined with --once, --json or --csv."
        )
    has_rules = settings is not None and settings.alerts is not None
    if not (has_rules or any(options[what] for what in ("log", "metrics", "record", "ipfix"))):
        if settings is not None and settings.problem:  # there may be rules in it
            click.echo(f"{PROGRAM}: {settings.problem}", err=True)
        raise click.UsageError(
            "--headless requires --log DIR, --metrics FILE, --record FILE, --ipfix HOST:PORT or alerts in the settings."
        )
    if options["replay"] is not None and not options["ipfix"]:
        raise click.UsageError("--headless with --replay requires --ipfix HOST:PORT.")


def _check_sort(ctx: click.Context, options: CommandLine) -> None:
    """Each view has columns of its own; what the settings say holds for the views that have it."""
    if options["sort"] is None:
        return
    from columns import ALIASES, VIEW_BY_NAME, by_view

    sort, kind = options["sort"], by_view(options["by"]) if options["by"] else VIEW_BY_NAME[options["view"]]
    for name in (sort, ALIASES.get(sort, sort)):
        if name in kind.sorts:
            options["sort"] = name
            return
    if ctx.get_parameter_source("sort") is click.core.ParameterSource.DEFAULT_MAP:
        options["sort"] = None
        return
    columns = ", ".join(kind.sorts)
    raise click.BadParameter(
        f"{sort!r} is not a column of the view {options['by'] or kind.name}; valid: {columns}.", param_hint="'--sort'"
    )


DEMO = "demo.rec"


def _demo() -> bytes:
    """The bundled recording: of a checkout in its folder fixtures, else beside the program or in the one file."""
    here = os.path.dirname(os.path.realpath(__file__))  # a link to the program, as the image has it, is beside nothing
    if os.path.isfile(here):
        from zipimport import zipimporter  # zipfile wants what small Pythons lack

        return zipimporter(here).get_data(os.path.join(here, DEMO))
    for place in (os.path.join(here, "fixtures", DEMO), os.path.join(here, DEMO)):
        if os.path.exists(place):
            with open(place, "rb") as file:
                return file.read()
    raise ValueError("this installation does not include it")


def _replay(options: CommandLine) -> Callable[[], Source]:
    """What gives the recording; it is opened now."""
    from recording import Replay

    path = options["replay"]
    assert path is not None
    try:
        speed = options["speed"] if _is_screen(options) else 0.0
        replay = Replay(path, speed, _demo() if options["demo"] else None, options["node"], not options["node"])
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise click.BadParameter(
            f"'{click.format_filename(path)}' can't be read: {why}", param_hint="'--replay'"
        ) from None
    return lambda: replay


def _source(options: CommandLine, node: Machine, counters: bool) -> Callable[[], Source]:
    """What makes the source of a machine when the loop is ready for it.

    ``counters``: alerts ask what `conntrack -S` counts.
    """
    from source import Command, LiveSource, pushed_down

    run = Command(node.words, options["conntrack"], pushed_down(options["protocol"], _families_of(options)))
    interval = options["sample"] or options["interval"]
    counts = _is_screen(options) or bool(options["metrics"]) or (counters and not options["once"])
    events, machines = not options["once"], max(1, len(options["via"]))
    return lambda: LiveSource(run, interval, events, counts, machines)


def _guarded(run: Callable[[], int]) -> int:
    """Run it; whatever goes wrong ends in a line for a person and an exit code."""
    try:
        return run()
    except MemoryError:
        if os.environ.get("CONNTRACK_MONITOR_DEBUG"):
            raise
    except KeyboardInterrupt:
        return 0
    except BrokenPipeError:
        # The reader of our output has gone: nothing to say and nobody to say it to.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0
    except (click.ClickException, ModuleNotFoundError):
        raise
    except OSError as error:
        return _fail(f"{error.strerror or error}" + (f": {error.filename}" if error.filename else ""))
    except Exception as error:
        if os.environ.get("CONNTRACK_MONITOR_DEBUG"):
            raise
        return _fail(f"internal error, {type(error).__name__}: {error}; CONNTRACK_MONITOR_DEBUG=1 shows where")
    return _fail_without_memory()  # here, because the frames that held the memory are gone by now


def _fail_without_memory() -> int:
    """Say what took the memory, and what helps."""
    import resource

    from health import out_of_memory

    allowed, _ = resource.getrlimit(resource.RLIMIT_AS)
    taken = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
    limit = None if allowed == resource.RLIM_INFINITY else allowed
    table, helps = (_KEPT[0].table, _KEPT[0].helps_memory) if _KEPT else (None, "")
    return _fail(str(out_of_memory(table, taken, limit, helps)))


def _fail(message: str) -> int:
    from text import clean

    with contextlib.suppress(OSError):  # standard error on a full disk
        click.echo(f"{PROGRAM}: {clean(message, 400)}", err=True)
    return 1


def _hold_standard_numbers() -> None:
    """Put something useless where standard input, output or error is closed (`>&-`, some daemons).

    The next file or pipe would get its number, and what is meant for the reader would be written there.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDONLY if number else os.O_WRONLY)  # the lowest that is free: this one


def main() -> NoReturn:
    _hold_standard_numbers()
    try:
        command(prog_name=PROGRAM)
    except ModuleNotFoundError as error:
        sys.exit(f"{PROGRAM}: {lacking(error)}")
    except SystemExit as end:
        if not isinstance(end.code, int):
            raise
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError):
                if stream is not None:
                    stream.flush()
        os._exit(end.code)  # Python would free 200,000 flows one by one, for 0.1 s
    raise SystemExit(0)


if __name__ == "__main__":
    main()
