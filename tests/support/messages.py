"""The program's messages, read from its code: what it says when something is wrong, missing or refused.

A message is what the code hands to one of the places below that speak to people. Its text is found through local names,
constants, and functions that return it. What is only known when the program runs is ``…``: ``{path} is empty`` gives
``… is empty``.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import product
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent.parent
UNKNOWN = "…"
MOST = 24  # texts of one message; where there are more, the parts that differ are UNKNOWN
DEEPEST = 6  # names and functions that are followed one after the other

Function = ast.FunctionDef | ast.Lambda

# Calls that speak to people, and which argument is the text.
CALLS = {"Problem": 0, "Notice": 0, "Refusal": 0, "say": 0, "_fail": 0, "fail": 0, "_failed": 1, "exit": 0}
# Attributes and keyword arguments that hold a text for people.
HOLDERS = {"message", "error", "problem", "stopped", "set_aside"}
# Functions whose tuples (or yields) are texts with their cures.
LISTS = {
    "notices",
    "notice",
    "log_notices",
    "empty_reason",
    "_no_usage",
    "export_rows",
    "unread",
    "doubts",
    "complaint",
}
# Where a ValueError is for the person who typed the value. Elsewhere it is caught and not shown.
TYPED = {"collectors", "config", "filters", "past", "recording", "conntrack_monitor"}
OTHERS = ("ssh: …", "docker: …")  # what another program said, after its name


class Message(NamedTuple):
    """``room``: the module that says it; ``line``: where."""

    text: str
    room: str
    line: int

    def __str__(self) -> str:
        return f"{self.room}.py:{self.line}: {self.text}"


class House:
    """All modules, with what a name may stand for."""

    def __init__(self, root: Path = ROOT) -> None:
        self.modules = {path.stem: ast.parse(path.read_text(encoding="utf-8")) for path in sorted(root.glob("*.py"))}
        self.constants: dict[str, list[ast.expr]] = {}
        self.functions: dict[str, list[ast.FunctionDef]] = {}
        self.failures = {"UsageError", "BadParameter", "ClickException"}
        self.parents: dict[ast.AST, ast.AST] = {}
        self.nodes = {room: list(ast.walk(module)) for room, module in self.modules.items()}
        for room in self.modules:
            self._read(room)

    def _read(self, room: str) -> None:
        for node in self.nodes[room]:
            self.parents.update((child, node) for child in ast.iter_child_nodes(node))
            if isinstance(node, ast.FunctionDef):
                self.functions.setdefault(node.name, []).append(node)
            elif isinstance(node, ast.ClassDef) and re.search(
                r"Error\b|\bException\b", " ".join(map(ast.unparse, node.bases))
            ):
                self.failures.add(node.name)
        for statement in self.modules[room].body:
            for name, value in _assigned(statement):
                self.constants.setdefault(name, []).append(value)

    def function_of(self, node: ast.AST) -> ast.FunctionDef | None:
        """The function around a node."""
        while (node := self.parents.get(node, self.modules["text"])) not in self.modules.values():
            if isinstance(node, ast.FunctionDef):
                return node
        return None

    # --- what a text may be ---

    def texts(self, node: ast.AST | None, depth: int = 0) -> list[str]:
        if isinstance(node, ast.Constant):
            return [node.value] if isinstance(node.value, str) else [UNKNOWN]
        if node is None or depth > DEEPEST:
            return [UNKNOWN]
        if isinstance(node, ast.JoinedStr):
            return self._joined(node.values, depth)
        if isinstance(node, ast.FormattedValue):
            return self.texts(node.value, depth) if node.format_spec is None and node.conversion < 0 else [UNKNOWN]
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            return self._joined([node.left, node.right], depth)
        if isinstance(node, ast.IfExp):
            return _few([*self.texts(node.body, depth), *self.texts(node.orelse, depth)])
        if isinstance(node, ast.BoolOp):
            return _few([text for value in node.values for text in self.texts(value, depth)])
        if isinstance(node, ast.Name):
            return self._named(node, depth)
        if isinstance(node, ast.Attribute):
            return self._attribute(node, depth)
        if isinstance(node, ast.Call):
            return self._called(node, depth)
        return [UNKNOWN]

    def _joined(self, parts: Sequence[ast.AST], depth: int) -> list[str]:
        each = [self.texts(part, depth) for part in parts]
        while (most := max(map(len, each), default=0)) > 1 and _number(each) > MOST:
            each[[len(texts) for texts in each].index(most)] = [UNKNOWN]
        return _few(["".join(texts) for texts in product(*each)])

    def _named(self, node: ast.Name, depth: int) -> list[str]:
        function = self.function_of(node)
        if function is None:
            return self._constant(node.id, depth)
        found, grows = self._before(node, function)
        found += self._looped(function, node.id)
        if found:
            texts = _few([text for value in found for text in self.texts(value, depth + 1)])
            return [text + UNKNOWN for text in texts] if grows else texts
        if node.id in {argument.arg for argument in function.args.args}:
            return [UNKNOWN]
        return self._constant(node.id, depth)

    def _constant(self, name: str, depth: int) -> list[str]:
        return _few([text for value in self.constants.get(name, []) for text in self.texts(value, depth + 1)])

    def _before(self, node: ast.Name, function: ast.FunctionDef) -> tuple[list[ast.expr], bool]:
        """What the name was set to on the ways that lead to its use, and whether something was added to that."""
        around: list[ast.AST] = [node]
        while around[-1] is not function:
            around.append(self.parents[around[-1]])
        found: list[ast.expr] = []
        grows = False
        for statement in _in_order(function):
            if statement.lineno > node.lineno or statement in around:
                continue
            for name, value in _assigned(statement):
                if name == node.id:
                    if self.parents[statement] in around:  # it is run in any case
                        found, grows = [], False
                    found.append(value)
            if isinstance(statement, ast.AugAssign) and ast.unparse(statement.target) == node.id:
                grows = True
        return found, grows

    def _looped(self, function: ast.AST, wanted: str) -> list[ast.expr]:
        """What a name of a loop stands for, where the loop goes over rows that are written in the code."""
        found = []
        for loop in ast.walk(function):
            if isinstance(loop, (ast.For, ast.comprehension)) and isinstance(loop.target, ast.Tuple):
                names = [name.id if isinstance(name, ast.Name) else "" for name in loop.target.elts]
                if wanted in names:
                    rows = self._rows(loop.iter)
                    at = names.index(wanted)
                    found += [row.elts[at] for row in rows if isinstance(row, ast.Tuple) and len(row.elts) > at]
        return found

    def _rows(self, node: ast.expr) -> list[ast.expr]:
        if isinstance(node, ast.Starred):
            return self._rows(node.value)
        if isinstance(node, ast.Name):
            return [row for value in self.constants.get(node.id, []) for row in self._rows(value)]
        if isinstance(node, (ast.Tuple, ast.List)):
            return [
                row for item in node.elts for row in (self._rows(item) if isinstance(item, ast.Starred) else [item])
            ]
        return []

    def _attribute(self, node: ast.Attribute, depth: int) -> list[str]:
        """An attribute that the same class sets."""
        if not (isinstance(node.value, ast.Name) and node.value.id == "self"):
            return [UNKNOWN]
        above: ast.AST | None = node
        while above is not None and not isinstance(above, ast.ClassDef):
            above = self.parents.get(above)
        found = [
            statement.value
            for statement in (ast.walk(above) if above else ())
            if isinstance(statement, ast.Assign)
            and any(ast.unparse(t) == f"self.{node.attr}" for t in statement.targets)
        ]
        return _few([text for value in found for text in self.texts(value, depth + 1) if text])

    def _called(self, node: ast.Call, depth: int) -> list[str]:
        name = _name(node.func)
        if name == "str" and node.args:
            return self.texts(node.args[0], depth + 1)
        if name == "format" and isinstance(node.func, ast.Attribute):
            return [re.sub(r"\{[^}]*\}", UNKNOWN, text) for text in self.texts(node.func.value, depth)]
        functions = self.functions.get(name, [])
        if (
            name == "get"
            or len(functions) != 1
            or not (functions[0].returns and ast.unparse(functions[0].returns) == "str")
        ):
            return [UNKNOWN]
        found = [part.value for part in ast.walk(functions[0]) if isinstance(part, ast.Return)]
        return _few([text for value in found for text in self.texts(value, depth + 1) if text])

    # --- where it speaks to people ---

    def spoken(self) -> Iterator[tuple[str, ast.AST]]:
        """Each text for people: the module, and the expression."""
        for room, nodes in self.nodes.items():
            for node in nodes:
                if isinstance(node, ast.Call):
                    yield from ((room, text) for text in self._of_call(node, room))
                elif isinstance(node, (ast.Assign, ast.AnnAssign)):
                    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                    if node.value and any(isinstance(t, ast.Attribute) and t.attr in HOLDERS for t in targets):
                        yield room, node.value
                elif isinstance(node, ast.FunctionDef) and node.name in LISTS:
                    yield from ((room, text) for text in _listed(node))

    def _of_call(self, node: ast.Call, room: str) -> Iterator[ast.AST]:
        name = _name(node.func)
        if name in CALLS and len(node.args) > CALLS[name]:
            yield node.args[CALLS[name]]
        elif (name in self.failures or (name == "ValueError" and room in TYPED)) and node.args:
            yield node.args[0]
        elif name == "HealthRow" and any(keyword.arg == "cure" for keyword in node.keywords):
            yield node.args[1]
        elif name == "append" and ast.unparse(node.func).endswith(".notices.append"):
            yield node.args[0]
        elif name[:1].isupper():
            yield from (keyword.value for keyword in node.keywords if keyword.arg in HOLDERS)


@cache
def _in_order(function: ast.FunctionDef) -> list[ast.stmt | ast.NamedExpr]:
    """What is in a function, as it stands there."""
    found = [node for node in ast.walk(function) if isinstance(node, (ast.stmt, ast.NamedExpr))]
    return sorted(found, key=lambda node: (node.lineno, node.col_offset))


def _listed(function: ast.FunctionDef) -> Iterator[ast.AST]:
    for node in ast.walk(function):
        if isinstance(node, ast.Tuple) and len(node.elts) == 2 and isinstance(node.ctx, ast.Load):
            yield node.elts[0]
        elif isinstance(node, (ast.Yield, ast.Return)) and node.value is not None:
            yield node.value
        elif isinstance(node, ast.Call) and _name(node.func) == "append":
            yield node.args[0]
        elif isinstance(node, (ast.List, ast.ListComp)):
            yield from node.elts if isinstance(node, ast.List) else [node.elt]


def _assigned(statement: ast.AST) -> Iterator[tuple[str, ast.expr]]:
    """The names that a statement sets, each with its value."""
    if isinstance(statement, (ast.AnnAssign, ast.NamedExpr)) and isinstance(statement.target, ast.Name):
        if statement.value is not None:
            yield statement.target.id, statement.value
    elif isinstance(statement, ast.Assign):
        for target in statement.targets:
            if isinstance(target, ast.Name):
                yield target.id, statement.value
            elif isinstance(target, ast.Tuple) and isinstance(statement.value, ast.Tuple):
                pairs = zip(target.elts, statement.value.elts, strict=False)
                yield from ((name.id, value) for name, value in pairs if isinstance(name, ast.Name))


def _name(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _number(each: list[list[str]]) -> int:
    number = 1
    for texts in each:
        number *= len(texts)
    return number


def _few(texts: list[str]) -> list[str]:
    """Each of them once; UNKNOWN alone where there is none, or too many."""
    found = list(dict.fromkeys(texts))
    return found if 0 < len(found) <= MOST else [UNKNOWN]


def plain(text: str) -> str:
    """A text in the form in which texts are compared: one blank, one UNKNOWN in a row, no full stop at its end."""
    text = " ".join(text.split())
    return re.sub(rf"(?:{UNKNOWN}[ ]?)+{UNKNOWN}", UNKNOWN, text).rstrip(". ")


def says_something(text: str) -> bool:
    """Two words at least, or a program's name and what it said: one that is all variable is said elsewhere in full."""
    return len(re.findall(r"[A-Za-z]{2,}", text)) >= 2 or text in OTHERS


@cache
def messages() -> tuple[Message, ...]:
    """Every message of the program, once."""
    house = House()
    found: dict[str, Message] = {}
    for room, node in house.spoken():
        for text in map(plain, house.texts(node)):
            if says_something(text):
                found.setdefault(text, Message(text, room, getattr(node, "lineno", 0)))
    return tuple(found.values())
