"""Settings: ``config.toml``, with the same words as the options, names of marks, zones and hosts, networks, and alerts.

If anything in the file is wrong, the whole file is ignored and the line is reported: half of the settings would not be
what the user asked for. The file may name programs to run. So it is only used if nobody else can write to it, as ssh
requires of its own file (:func:`_foreign`).
"""

from __future__ import annotations

import os
import re
import shlex
import stat
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from addresses import LONGEST_NODE, PLAIN_SITE, Context, Network, Site
from intake import Problem
from text import clean, printable

if TYPE_CHECKING:
    from alerts import AlertPlan

NAME = os.path.join("conntrack-monitor", "config.toml")
LARGEST_SETTINGS = 65_536  # bytes: a thousand names for marks; a larger file is no settings file
LONGEST_NAME = 32  # characters of a mark's or a zone's name
TABLES = ("marks", "zones", "filters", "hosts", "alert", "local-networks")

# These hold for one run. --allow-delete must be given each time, so that nobody deletes by accident.
ONLY_ON_THE_COMMAND_LINE = {
    *("once", "json", "csv", "limit", "sample", "replay", "record", "update-geoip", "allow-delete", "no-config"),
    *("headless", "who", "at", "since", "by", "demo", "only"),
    *("help", "version", "print-man", "print-completion"),
}
INSTEAD = {"ipv4": 'filter = "family:4"', "ipv6": 'filter = "family:6"'}  # -6 could not undo an ipv4 = true
# Options that name programs to run, or places to write to: root takes neither from a user's file.
FROM_ONES_OWN_FILE = {
    "via": "a program, and root runs nothing",
    "conntrack": "a program, and root runs nothing",
    "log": "a folder to write to, and root writes nowhere",
    "ipfix": "collectors, and root sends nothing to those",
    "metrics": "a file to write to, and root writes nowhere",
    "geoip-db": "folders to write databases to, and root writes nowhere",
}
Marks = dict[tuple[int, int], str]  # (value, mask) -> name


@dataclass(frozen=True)
class Settings:
    """What the file says. ``options`` by click's parameter names, checked; ``problem``: why nothing of it is used."""

    path: str = ""
    options: dict[str, object] = field(default_factory=dict)
    site: Site = PLAIN_SITE
    problem: str = ""
    alerts: AlertPlan | None = None


class WrongSetting(ValueError):
    """Something in the file is wrong: why, and at which key of which table ("" is the top level)."""

    def __init__(self, why: str, key: str = "", table: str = "") -> None:
        super().__init__(why)
        self.key, self.table = key, table


# --- which file, and may it be believed? ------------------------------------------------------------------------------


def places(environ: Mapping[str, str], uid: int) -> list[str]:
    """Where the file may be, best first; ``uid``: who we are.

    Under sudo the file of the user who typed it comes before root's. XDG_CONFIG_HOME, if it is absolute, is the only
    place.
    """
    base = environ.get("XDG_CONFIG_HOME", "")
    if os.path.isabs(base):
        return [os.path.join(base, NAME)]
    homes = [environ.get("HOME", "") or os.path.expanduser("~")]
    caller = sudo_user(environ, uid)
    if caller is not None:
        import pwd

        try:
            homes.insert(0, pwd.getpwuid(caller).pw_dir)
        except KeyError:
            pass  # a user that this machine does not know
    return list(dict.fromkeys(os.path.join(home, ".config", NAME) for home in homes if os.path.isabs(home)))


def sudo_user(environ: Mapping[str, str], uid: int) -> int | None:
    """The user who became root by sudo; None for anybody else."""
    text = environ.get("SUDO_UID", "")
    caller = int(text) if re.fullmatch(r"[0-9]{1,10}", text) else 0
    return caller if uid == 0 and caller else None


def _read(path: str, caller: int | None) -> tuple[bytes, bool] | None:
    """The file's bytes, and whether it is foreign; None if there is none. Raises WrongSetting, OSError."""
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError, PermissionError):  # a home that we may not look into has none
        return None
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    with open(path, "rb", opener=lambda name, _flags: os.open(name, flags)) as file:
        state = os.fstat(file.fileno())
        if not stat.S_ISREG(state.st_mode):
            raise WrongSetting("it is not a regular file")
        foreign = _foreign(state, os.geteuid(), caller)
        data = file.read(LARGEST_SETTINGS + 1)
    if len(data) > LARGEST_SETTINGS:
        raise WrongSetting(f"it is larger than {LARGEST_SETTINGS >> 10} KiB")
    return data, foreign


def _is_written_by_others(state: os.stat_result) -> bool:
    """May anybody but its owner write to a file or into a folder?"""
    return stat.S_IMODE(state.st_mode) & 0o022 != 0


def _foreign(state: os.stat_result, uid: int, caller: int | None) -> bool:
    """False for a file of ours or root's; True for one of the user who called sudo: it must name no program or place.

    (Rules in sudoers can allow this program and nothing else.) Raises WrongSetting where another user wrote
    it or could have, by the rule that ssh has for its own file.
    """
    if state.st_uid not in (uid, 0) and state.st_uid != caller:
        raise WrongSetting(f"it belongs to another user (uid {state.st_uid})")
    if _is_written_by_others(state):
        raise WrongSetting("other users can write to it; try: chmod go-w")
    return state.st_uid not in (uid, 0)


# --- reading it -------------------------------------------------------------------------------------------------------


def load_settings(ctx: click.Context, environ: Mapping[str, str]) -> Settings:
    """The settings of whoever runs this; empty ones where there is no file. Raises nothing."""
    uid = os.geteuid()
    caller = sudo_user(environ, uid)
    for path in places(environ, uid):
        text = ""
        try:
            found = _read(path, caller)
            if found is None:
                continue
            data, foreign = found
            text = _decoded(data)
            return _checked(path, _parsed(text), ctx, foreign)
        except WrongSetting as error:
            line = _line_of(text, error.table, error.key) if error.key else 0
            return _ignored(path, line, str(error))
        except OSError as error:
            return _ignored(path, 0, f"it can't be read: {error.strerror}")
    return Settings()


def _ignored(path: str, line: int, why: str) -> Settings:
    where = f"line {line}: " if line else ""
    return Settings(path, problem=f"settings ignored: {where}{clean(why, 600)}, in {clean(path)}")


def _decoded(data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise WrongSetting(f"line {line} is not UTF-8") from None


def _parsed(text: str) -> dict[str, object]:
    if sys.version_info >= (3, 11):
        try:
            import tomllib  # only where there is a file: 6 ms

            return tomllib.loads(text)
        except RecursionError:
            raise WrongSetting("it is nested too deeply") from None
        except ModuleNotFoundError as error:
            raise WrongSetting(f"reading it needs the Python module {error.name}, which is missing") from None
        except ValueError as error:  # TOMLDecodeError says the line, or that it is the end; or a number of 5,000 digits
            raise WrongSetting(f"not TOML: {error}") from None
    raise WrongSetting("reading it needs Python 3.11 or later; this is {}.{}.{}".format(*sys.version_info))


def _checked(path: str, found: dict[str, object], ctx: click.Context, foreign: bool) -> Settings:
    """All of the file in the shapes that the program takes; raises WrongSetting."""
    site = Site(
        dict(_mark_table(found.pop("marks", {}))),
        dict(_zone_table(found.pop("zones", {}))),
        tuple(_networks(found.pop("local-networks", []))),
        hosts=dict(_host_table(found.pop("hosts", {}))),
    )
    checked: dict[str, object] = {}
    options = {
        name[2:]: option
        for option in ctx.command.params
        if isinstance(option, click.Option) and not option.hidden
        for name in option.opts
        if name.startswith("--")
    }
    # A filter in the file may use the file's names.
    site = replace(site, filters=dict(_filter_table(found.pop("filters", {}), Context(site=site))))
    context = Context(site=site)
    alerts = _alerts(found.pop("alert"), context, path, foreign) if "alert" in found else None
    for key, value in found.items():
        if key in ONLY_ON_THE_COMMAND_LINE:
            raise WrongSetting(f"'{key}' works only on the command line", key)
        if key in INSTEAD:
            raise WrongSetting(f"'{key}' works only on the command line; here, write {INSTEAD[key]}", key)
        if key not in options:
            allowed = sorted(options.keys() - ONLY_ON_THE_COMMAND_LINE - INSTEAD.keys()) + list(TABLES)
            raise WrongSetting(f"unknown key '{key}'; valid: {' '.join(allowed)}", key)
        if foreign and key in FROM_ONES_OWN_FILE:
            raise WrongSetting(f"'{key}' names {FROM_ONES_OWN_FILE[key]} that another user's file sets", key)
        try:
            checked[options[key].name or ""] = _value(ctx, options[key], key, value, context)
        except click.BadParameter as error:
            raise WrongSetting(f"{key}: {error.message}", key) from None
        except ValueError as error:
            raise WrongSetting(f"{key}: {error}", key) from None
    return Settings(path, checked, site, alerts=alerts)


def _value(ctx: click.Context, option: click.Option, key: str, value: object, context: Context) -> object:
    """One option's value, checked as on the command line. Raises ValueError, click.BadParameter."""
    if option.is_flag:
        if not isinstance(value, bool):
            raise ValueError("expected true or false")
        return value
    if option.multiple:
        values = value if isinstance(value, list) else [value]
        texts = [str(item) if type(item) is int and key == "protocol" else item for item in values]  # [6, "udp"]
        if not all(isinstance(item, str) for item in texts):
            raise ValueError('expected a list of strings, such as ["a", "b"]')
        value = texts
    elif isinstance(option.type, (click.types.IntParamType, click.types.FloatParamType)):
        if type(value) not in (int, float):
            raise ValueError("expected a number")
    elif not isinstance(value, str):
        raise ValueError("expected a string in quotes")
    if any("\0" in text for text in (value if isinstance(value, list) else [value]) if isinstance(text, str)):
        raise ValueError("it contains a null character")
    option.type_cast_value(ctx, value)
    if check := _BEYOND.get(key):
        check(value, context)
    return value


def _check_filter(value: str, context: Context) -> None:
    from filters import FilterError, compile_filter

    try:
        compile_filter(value, context)
    except FilterError as error:
        raise ValueError(error.message) from None


def _protocols(value: list[str], context: Context) -> None:
    from filters import from_flags

    from_flags(value, (), (), context)


def _states(value: list[str], context: Context) -> None:
    from filters import from_flags

    from_flags((), value, (), context)


# What click's types do not know.
_BEYOND: dict[str, Callable[[Any, Context], object]] = {
    "filter": _check_filter,
    "protocol": _protocols,
    "state": _states,
    "via": lambda value, _context: [machine(text) for text in ([value] if isinstance(value, str) else value)],
    "conntrack": lambda value, _context: program(value),
}


def is_node_name(text: str) -> bool:
    """May a machine be called that?"""
    return text == printable(text) and len(text) <= LONGEST_NODE


class Machine(NamedTuple):
    """A value of --via: the name of the node, "" where nobody says it, and the words before every command."""

    name: str
    words: list[str]


_NAMED_WAY = re.compile(r"([^\s=/'\"]+)=(.*)", re.DOTALL)


def machine(text: str) -> Machine:
    """What a value of --via says: [NAME=]COMMAND. ValueError says what is wrong.

    >>> machine("r1=ssh root@192.0.2.1")
    Machine(name='r1', words=['ssh', 'root@192.0.2.1'])
    >>> machine("here=")
    Machine(name='here', words=[])
    """
    named = _NAMED_WAY.fullmatch(text)
    name, command = named.groups() if named else ("", text)
    if not is_node_name(name):
        raise ValueError(f"{clean(name, 40)!r} is not a name for a node")
    return Machine(name, command_words(command))


def machines(via: Sequence[str], conntrack: str) -> list[Machine]:
    """The machines of --via, where their commands and --conntrack can be run; else click.BadParameter."""
    option = "--via"
    try:
        found = [machine(text) for text in via or ("",)]
        option = "--conntrack"
        program(conntrack)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint=f"'{option}'") from None
    return found


def command_words(text: str) -> list[str]:
    """The words of --via; none for "". ValueError says what is wrong."""
    words = shlex.split(text)
    if text and not words:
        raise ValueError("the command is empty")
    return [program(words[0]), *words[1:]] if words else []


def program(word: str) -> str:
    """A program's name or path; ValueError for what can't be one."""
    if word.startswith("-") or "\0" in word:
        raise ValueError(f"{word!r} is not a program")
    return word


# --- alerts -----------------------------------------------------------------------------------------------------------


def _alerts(found: object, context: Context, path: str, foreign: bool) -> AlertPlan | None:
    """The rules of ``[[alert]]``, and why root runs none of their commands, where it does not."""
    from alerts import AlertPlan, Rule, RuleError, rules_of  # only where there are some: 60 ms

    rules: list[Rule] = []
    try:
        for rule in rules_of(found, context):
            rules.append(rule)
    except RuleError as error:
        raise WrongSetting(str(error), error.key or "alert", f"alert#{len(rules) + 1}") from None
    runs = any(rule.run for rule in rules)
    refused = _why_nothing_is_run(path, foreign) if runs and os.geteuid() == 0 else None
    return AlertPlan(tuple(rules), refused) if rules else None


def _why_nothing_is_run(path: str, foreign: bool) -> Problem | None:
    """Root runs only what root has written: nobody else may own the file or put another one in its place."""
    shown = clean(path, 200)
    if foreign:
        what = f"no command of an alert is run: root runs nothing from another user's file, {shown}"
        return Problem(what, f"chown root:root {shlex.quote(shown)}")
    for folder in dict.fromkeys((os.path.dirname(path), os.path.dirname(os.path.realpath(path)))):
        shown = clean(folder, 200)
        what = f"no command of an alert is run: others can change the settings in {shown}"
        try:
            state = os.stat(folder)
        except OSError:
            return Problem(what, f"ls -ld {shlex.quote(shown)}")
        if state.st_uid != 0:
            return Problem(what, f"chown root:root {shlex.quote(shown)}")
        if _is_written_by_others(state):
            return Problem(what, f"chmod go-w {shlex.quote(shown)}")
    return None


# --- names and networks -----------------------------------------------------------------------------------------------


def _mark_table(table: object) -> Iterator[tuple[tuple[int, int], str]]:
    from filters import mark_of

    seen = set()
    for key, name in _entries(table, "marks", '0x7 = "vpn"'):
        try:
            mark, mask = mark_of(key)
        except ValueError as error:
            raise WrongSetting(str(error), key, "marks") from None
        if max(mark, mask) > 0xFFFFFFFF:
            raise WrongSetting(f"'{key}' has more than 32 bits", key, "marks")
        if mark & ~mask:
            raise WrongSetting(f"'{key}' can't match any mark: the mask clears bits of the value", key, "marks")
        if (mark, mask) in seen:
            raise WrongSetting(f"mark {mark:#x} is named twice", key, "marks")
        seen.add((mark, mask))
        yield (mark, mask), _checked_name(name, key, "marks")


def _zone_table(table: object) -> Iterator[tuple[int, str]]:
    for key, name in _entries(table, "zones", '3 = "office"'):
        if not re.fullmatch(r"0|[1-9][0-9]{0,4}", key) or int(key) > 65_535:
            raise WrongSetting(f"'{key}' is not a zone: a number up to 65535", key, "zones")
        yield int(key), _checked_name(name, key, "zones")


def _filter_table(table: object, context: Context) -> Iterator[tuple[str, str]]:
    """Filters by name: ``kids = "near:10.0.3.0/24"`` is ``@kids``."""
    from filters import FilterError, compile_filter

    for key, text in _entries(table, "filters", 'kids = "near:10.0.3.0/24"'):
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", key) or len(key) > LONGEST_NAME:
            why = f"a name begins with a letter and has at most {LONGEST_NAME} letters, digits, - and _"
            raise WrongSetting(f"'{clean(key, 40)}': {why}", key, "filters")
        if not isinstance(text, str) or not text.strip():
            raise WrongSetting("a filter must be a string in quotes", key, "filters")
        try:
            if re.search(r"(?<![^\s(!])@[A-Za-z]", text):
                raise WrongSetting("a saved filter can't use another one", key, "filters")
            compile_filter(text, context)
        except FilterError as error:
            raise WrongSetting(f"{key}: {error.message}", key, "filters") from None
        yield key, text


def _host_table(table: object) -> Iterator[tuple[str, str]]:
    """Names by what tells a host: an address, a network, a MAC address, or the public key of a WireGuard peer."""
    from devices import PUBLIC_KEY, label_of, mac_of, network_of

    seen = set()
    for key, name in _entries(table, "hosts", '"10.0.0.5" = "laptop"'):
        found = network_of(key) or mac_of(key) or (key if PUBLIC_KEY.fullmatch(key) else "")
        if not found:
            what = "an address, a network, a MAC address, or a WireGuard peer's public key"
            raise WrongSetting(f"'{clean(key, 60)}' is not a host: {what}", key, "hosts")
        if found in seen:
            raise WrongSetting(f"{found} is named twice", key, "hosts")
        seen.add(found)
        shown = _checked_name(name, key, "hosts")
        if label_of(shown) != shown:
            raise WrongSetting("a host's name can't be an address", key, "hosts")
        yield found, shown


def _entries(table: object, name: str, example: str) -> Iterator[tuple[str, object]]:
    if not isinstance(table, dict):
        raise WrongSetting(f"[{name}] takes lines like {example}", name)
    yield from table.items()


def _checked_name(name: object, key: str, table: str) -> str:
    """A name that is safe to show, and that a filter can tell from a number."""
    shown = clean(name, LONGEST_NAME + 1) if isinstance(name, str) else ""
    if not shown or '"' in shown or re.fullmatch(r"0[xX][0-9a-fA-F]+|[0-9]+", shown):
        raise WrongSetting("a name must be a string in quotes, not a number", key, table)
    if len(shown) > LONGEST_NAME:
        raise WrongSetting(f"a name has at most {LONGEST_NAME} characters", key, table)
    return shown


def _networks(found: object) -> Iterator[Network]:
    from ipaddress import ip_network

    key = "local-networks"
    if not isinstance(found, list):
        raise WrongSetting(f'{key}: expected a list of networks, such as ["10.9.0.0/16"]', key)
    for text in found:
        try:
            if not isinstance(text, str):
                raise ValueError
            yield ip_network(text, strict=False)
        except ValueError:
            shown = clean(str(text), 60)
            raise WrongSetting(
                f"{key}: '{shown}' is not an address or a network (10.0.0.0/8, 2001:db8::/32)", key
            ) from None


def _line_of(text: str, table: str, key: str) -> int:
    """The line that sets a key; where it is written some other way, the first that has the word; 0 if none has.

    ``table``: of several with one name, ``name#2`` is the second; where that lacks the key, its head is meant.
    """
    here, entries, begins = "", 0, 0
    for number, line in enumerate(text.split("\n"), 1):
        if head := re.match(r"\s*(\[\[?)\s*([^\[\]]+?)\s*\]\]?\s*(?:#.*)?$", line):
            here = head[2].strip("\"'")
            if head[1] == "[[":
                entries += 1
                here = f"{here}#{entries}"
                begins = number if here == table else begins
            if not table and here == key:
                return number
        elif (
            here == table
            and (word := re.match(r"""\s*("[^"]*"|'[^']*'|[A-Za-z0-9_-]+)\s*[=.]""", line))
            and word[1].strip("\"'") == key
        ):
            return number
    if begins:
        return begins
    found = re.search(rf"(?<![\w-]){re.escape(key)}(?![\w-])", text)
    return text.count("\n", 0, found.start()) + 1 if found else 0
