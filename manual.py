"""What the program tells man and the shells about itself: the manual page, and what completes its options."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Mapping

import click
from click.shell_completion import CompletionItem, ShellComplete, get_completion_class

import columns
import parse
from keys import BINDINGS
from vocabulary import EVENT_NAMES, FIELDS, NAME_SOURCES

EXAMPLES = (
    ("the live screen", "sudo {}"),
    ("the 20 flows with the most bytes", "{} --once --sort bytes --limit 20"),
    ("every event as a line of JSON", "{} --json"),
    ("web traffic of one network", "{} -f 'port:80,443 src:10.0.0.0/8'"),
    ("another machine, which needs only conntrack", '{} --via "ssh root@router"'),
    (
        "keep a flow log, and look up who had an address",
        "{0} --headless --log /var/lib/flows\n{0} --who 203.0.113.1:38768 --at 14:02 --log /var/lib/flows",
    ),
    ("send flows and NAT events to a collector", "{} --headless --ipfix 192.0.2.7:4739"),
    (
        "metrics for node_exporter's textfile collector",
        "{} --headless --metrics /var/lib/prometheus/node-exporter/conntrack.prom",
    ),
    ("record, and replay ten times as fast", "{0} --record day.rec\n{0} --replay day.rec --speed 10"),
)


def manual_page(ctx: click.Context, program: str, release: str, filters: str, notes: Mapping[str, str]) -> str:
    """The manual page in man(7) macros. ``filters``: how fields are joined; ``notes``: more sections, by head."""
    brief = (ctx.command.help or "").partition(":")
    lines = [f'.TH {program.upper()} 8 "" "{_roff(release)}" "System administration"']
    lines += [".SH NAME", f"{_roff(program)} \\- {_roff(brief[0].lower())}"]
    lines += [".SH SYNOPSIS", f".B {_roff(program)}", "[\\fIOPTIONS\\fR]"]
    lines += [".SH DESCRIPTION", _roff(ctx.command.help or "")]
    lines += [
        ".SH OPTIONS",
        *_terms(filter(None, (param.get_help_record(ctx) for param in ctx.command.get_params(ctx)))),
    ]
    lines += [".SH KEYS", *_terms((", ".join(binding.keys), binding.text) for binding in BINDINGS)]
    lines += [".SH FILTER", _roff(filters), *_terms((field.term, field.meaning.replace("`", "")) for field in FIELDS)]
    for head, text in notes.items():
        lines += [f".SH {head.upper()}", _roff(text)]
    lines += [".SH EXAMPLES"]
    for what, command in EXAMPLES:
        lines += [".TP", _roff(what), ".nf", f".B {_roff(command.format(program))}".replace("\n", "\n.B "), ".fi"]
    return "\n".join([*lines, ".SH SEE ALSO", ".BR conntrack (8)"]) + "\n"


def _terms(pairs: Iterable[tuple[str, str]]) -> list[str]:
    return [line for term, text in pairs for line in (".TP", f".B {_roff(term)}", _roff(text))]


def _roff(text: str) -> str:
    r"""Text in which nothing means anything to roff.

    >>> print(_roff(".a-b \\ 'c'"))
    \&.a\-b \e \(aqc\(aq
    """
    text = text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq")
    return re.sub(r"^\.", r"\\&.", text, flags=re.M)


def completion_script(command: click.Command, shell: str, program: str) -> str:
    """The script that a shell reads, for this program by the name it was called by."""
    make = get_completion_class(shell)
    assert make
    variable = f"_{program}_COMPLETE".replace("-", "_").upper()
    # The base class's: bash's own would start a bash, to ask for its version.
    return ShellComplete.source(make(command, {}, os.path.basename(sys.argv[0]), variable))


def completions(what: str, incomplete: str) -> list[CompletionItem]:
    """What a value may be, as far as it is typed; "file" leaves it to the shell.

    >>> [item.value for item in (*completions("state", "est"), *completions("filter", "port:80 !sr"))]
    ['ESTABLISHED', 'port:80 !src:']
    """
    if what == "file":
        return [CompletionItem(incomplete, type="file")]
    if what == "filter":
        before = re.sub(r"[^\s(!]*$", "", incomplete)
        word = incomplete[len(before) :].lower()
        return [CompletionItem(f"{before}{field.name}:") for field in FIELDS if field.name.startswith(word)]

    words = {
        "protocol": sorted(parse.PROTOCOLS),
        "state": sorted({*parse.STATES, *parse.FLAGS}),
        "sort": list(columns.SORTS),
        "names": [*NAME_SOURCES, "none"],
        "events": list(EVENT_NAMES),
    }[what]
    return [CompletionItem(word) for word in words if word.lower().startswith(incomplete.lower())]
