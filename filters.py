"""The filter language of ``--filter`` and the ``/`` prompt: text -> a predicate over flows.

Words joined by blanks mean "and"; ``or``; parentheses; ``!`` or ``not`` negates. A word is ``field:value``, several
values may be given with commas (any of them), or a bare word that searches everything shown.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from typing import NamedTuple

from addresses import Context
from fields import Predicate, bare, by_family, by_protocol, by_state
from relations import FIELDS

MAX_DEPTH = 50  # parentheses and negations within each other; far below Python's recursion limit


class FilterError(ValueError):
    """A wrong expression: what is wrong and where (a character offset into the text)."""

    def __init__(self, message: str, text: str, position: int) -> None:
        super().__init__(message)
        self.message = message
        self.text = text
        self.position = position

    def pointed(self) -> str:
        """The message, then the expression with a caret under the place."""
        shown = "".join(c if c.isprintable() else "?" for c in self.text)
        return f"{self.message}\n  {shown}\n  {' ' * self.position}^"


class _Word(NamedTuple):
    text: str
    position: int


_LEX = re.compile(r'\s*(?:([()])|(!)(?=\S)|((?:"[^"]*"|[^\s()"])+)|(.))')


def compile_filter(text: str, context: Context) -> Predicate | None:
    """The predicate an expression stands for; None for an empty one (everything is wanted).

    Raises FilterError.
    """
    words = _lex(text)
    if not words:
        return None
    return _Parser(text, words, context).whole()


def _lex(text: str) -> list[_Word]:
    words = []
    for match in _LEX.finditer(text.rstrip()):
        if match.group(4):
            raise FilterError("quotation mark without its partner", text, match.start(4))
        part = next(i for i in (1, 2, 3) if match.group(i))
        words.append(_Word(match.group(part), match.start(part)))
    return words


class _Parser:
    """Recursive descent: or > and > not > word."""

    def __init__(self, text: str, words: list[_Word], context: Context) -> None:
        self.text = text
        self.words = words
        self.context = context
        self.at = 0
        self.depth = 0

    def whole(self) -> Predicate:
        result = self.any_of()
        if self.at < len(self.words):
            raise self.error("')' without '('", self.words[self.at].position)
        return result

    def error(self, message: str, position: int) -> FilterError:
        return FilterError(message, self.text, position)

    def peek(self) -> str | None:
        return self.words[self.at].text if self.at < len(self.words) else None

    def any_of(self) -> Predicate:
        parts = [self.all_of()]
        while (self.peek() or "").lower() == "or":
            self.at += 1
            parts.append(self.all_of())
        return parts[0] if len(parts) == 1 else lambda flow: any(part(flow) for part in parts)

    def all_of(self) -> Predicate:
        parts = [self.one()]
        while (word := self.peek()) is not None and word != ")" and word.lower() != "or":
            if word.lower() == "and":
                self.at += 1
            parts.append(self.one())
        return parts[0] if len(parts) == 1 else lambda flow: all(part(flow) for part in parts)

    def one(self) -> Predicate:
        word = self.peek()
        if word is None:
            raise self.error("a word is missing here", len(self.text))
        position = self.words[self.at].position
        if word.lower() in ("or", "and", ")"):
            raise self.error(f"a word is missing before '{word}'", position)
        self.at += 1
        if word == "(" or word == "!" or word.lower() == "not":
            self.depth += 1
            if self.depth > MAX_DEPTH:
                raise self.error(f"more than {MAX_DEPTH} levels", position)
            inner = self.group(position) if word == "(" else _negated(self.one())
            self.depth -= 1
            return inner
        return self.term(word, position)

    def group(self, position: int) -> Predicate:
        inner = self.any_of()
        if self.peek() != ")":
            raise self.error("'(' without ')'", position)
        self.at += 1
        return inner

    def term(self, word: str, position: int) -> Predicate:
        name, colon, value = word.partition(":")
        if (odd := re.match(r"&&|\|\||[a-z]+(?:=|<|>)", word.lower())) and not colon:
            if odd.group() in ("&&", "||"):
                raise self.error(f"'{odd.group()}' is no word of filters: a blank means and; write or", position)
            raise self.error(f"write {odd.group()[:-1]}:{word[len(odd.group()) - 1 :].lstrip('=')}", position)
        if not colon or not re.fullmatch(r"[A-Za-z]+", name) or _is_address(word):
            return bare(word.replace('"', "").lower(), self.context)
        make = FIELDS.get(name.lower())
        if make is None:
            raise self.error(f"unknown field '{name}'; there are: {' '.join(FIELDS)}", position)
        place = position + len(name) + 1
        parts = []
        for part in _split(value):
            plain = part.replace('"', "")
            try:
                if not plain and name.lower() != "new":
                    raise ValueError(f"a value is missing after '{name}:'")
                parts.append(make(plain, self.context))
            except ValueError as error:
                raise self.error(str(error), place) from None
            place += len(part) + 1
        return parts[0] if len(parts) == 1 else lambda flow: any(part(flow) for part in parts)


def _split(value: str) -> list[str]:
    """Cut at commas outside quotation marks."""
    return re.findall(r'(?:"[^"]*"|[^,"])+|(?<=,)(?=,|$)|^$', value) or [value]


def _negated(inner: Predicate) -> Predicate:
    return lambda flow: not inner(flow)


def _is_address(word: str) -> bool:
    try:
        ipaddress.ip_network(word, strict=False)
    except ValueError:
        return False
    return True


def all_of(parts: Iterable[Predicate | None]) -> Predicate | None:
    """All of the given predicates; None where none of them wants anything."""
    wanted = [part for part in parts if part is not None]
    if not wanted:
        return None
    return wanted[0] if len(wanted) == 1 else lambda flow: all(part(flow) for part in wanted)


def from_flags(
    protocols: Iterable[str], states: Iterable[str], families: Iterable[str], context: Context
) -> Predicate | None:
    """What ``-p``, ``-s``, ``-4`` and ``-6`` mean: within one of them any, between them all. Raises ValueError."""
    groups = (
        [by_protocol(value, context) for value in protocols],
        [by_state(value, context) for value in states],
        [by_family(value, context) for value in families],
    )
    return all_of(_any_of(group) for group in groups)


def _any_of(group: list[Predicate]) -> Predicate | None:
    return (lambda flow: any(part(flow) for part in group)) if group else None
