"""The shape of the program: pure modules stay pure, imports have no cycle, nobody sets another's attributes."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any, TypeGuard

import pytest

ROOT = Path(__file__).parent.parent
MODULES = {path.stem: ast.parse(path.read_text()) for path in ROOT.glob("*.py")}
PURE = {
    *(
        "clean",
        "columns",
        "comparisons",
        "details",
        "ends",
        "fields",
        "flow",
        "spans",
        "export",
        "filters",
        "flows",
        "health",
        "intake",
        "items",
        "names",
        "parse",
        "places",
    ),
    *(
        "problems",
        "ptr",
        "render",
        "sortkeys",
        "view",
        "rows",
        "notices",
        "land",
        "worldmap",
        "grouping",
        "header",
        "helptext",
        "keys",
    ),
    *("panel", "prompt", "relations", "scene", "singleout", "sumcolumns", "views"),
}
OUTSIDE = {"os", "subprocess", "select", "signal", "time", "blessed", "click", "maxminddb", "socket", "sys", "io"}
# csv writes into a StringIO; inet_pton only reads a text; localtime only reads a number.
ALLOWED = {"export": {"io"}, "sortkeys": {"socket"}, "sumcolumns": {"time"}}


def imports(tree: ast.AST, top_level_only: bool = False) -> set[str]:
    """The first names of all imported modules; imports for type checkers only are none."""
    found: set[str] = set()
    for node in tree.body if top_level_only and isinstance(tree, ast.Module) else ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add((node.module or "").partition(".")[0])
    return found


@pytest.mark.parametrize("name", sorted(PURE))
def test_pure_modules_know_nothing_of_the_outside(name: str) -> None:
    assert imports(MODULES[name]) & OUTSIDE <= ALLOWED.get(name, set())


@pytest.mark.parametrize("name", sorted(PURE))
def test_pure_modules_import_only_pure_ones(name: str) -> None:
    assert imports(MODULES[name]) & MODULES.keys() <= PURE


def test_imports_have_no_cycle() -> None:
    graph = {name: imports(tree, top_level_only=True) & MODULES.keys() for name, tree in MODULES.items()}
    assert len(list(TopologicalSorter(graph).static_order())) == len(MODULES)


def test_every_module_says_what_it_is_for() -> None:
    assert [name for name, tree in MODULES.items() if not ast.get_docstring(tree)] == []


@pytest.mark.parametrize("name", sorted(MODULES))
def test_no_shell_anywhere(name: str) -> None:
    for node in ast.walk(MODULES[name]):
        if isinstance(node, ast.keyword) and node.arg == "shell":
            pytest.fail(f"{name}.py:{node.lineno} asks for a shell")
        if isinstance(node, ast.Attribute) and node.attr in ("system", "popen") and isinstance(node.value, ast.Name):
            assert node.value.id != "os", f"{name}.py:{node.lineno}"


@pytest.mark.parametrize("name", sorted(MODULES))
def test_nothing_swallows_every_error(name: str) -> None:
    for node in ast.walk(MODULES[name]):
        assert not (isinstance(node, ast.ExceptHandler) and node.type is None), f"{name}.py:{node.lineno}"


# --- nobody sets another's attributes ---------------------------------------------------------------------------------

# Whose attributes a module sets though they are not its own, by the name that it has there.
OTHERS = {
    "conntrack_monitor": {"ctx", "_parameter"},  # click's way of being told
    "flows": {"flow", "flow.group", "group"},  # the table's own records, set for each line that comes
    "grouping": {"row", "sum_"},  # sums that are being added up
    "parse": {"out", "side"},  # a record that is being read
    "screen": {"sys"},
    # What is on show.
    "keys": {"prompt", "view"},
    "live": {"view"},
}


def constructed(function: ast.AST) -> set[str]:
    """Locals that are the function's own: it has made them by calling a class."""
    return {
        target.id
        for node in ast.walk(function)
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call)
        for target in node.targets
        if isinstance(target, ast.Name) and ast.unparse(node.value.func).rpartition(".")[2][:1].isupper()
    }


def owners(tree: ast.AST, own: frozenset[str] = frozenset({"self"})) -> set[str]:
    """The objects of which attributes are set or deleted, beside ``self`` and what the function has made."""
    found: set[str] = set()
    for node in ast.iter_child_nodes(tree):
        inner = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        mine = own | constructed(node) if inner else own
        owner: ast.expr | None = None
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store | ast.Del):
            owner = node.value
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("setattr", "delattr", "object.__setattr__"):
            owner = node.args[0]
        if owner is not None and not (isinstance(owner, ast.Name) and owner.id in mine):
            found.add(ast.unparse(owner).removeprefix("self."))
        found |= owners(node, mine)
    return found


def test_nobody_sets_the_attributes_of_others() -> None:
    found = {name: owners(tree) for name, tree in MODULES.items()}
    assert {name: names for name, names in found.items() if names} == OTHERS  # what is no longer done goes out, too


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("def f(self, status):\n    self.a, status.b = 1, 2", {"status"}),
        ("def f(self):\n    self.intake.status.recording += 'x'", {"intake.status"}),
        ("def f(made):\n    made = Made()\n    made.x: int = 1", set()),
        ("def f():\n    made = Made()\n    def g(made_else):\n        made.x = made_else.x = 1", {"made_else"}),
        ("def f(flow):\n    setattr(flow, 'x', 1)\n    del flow.group.x", {"flow", "flow.group"}),
        ("def f(flows):\n    for flows[0].x in flows: pass", {"flows[0]"}),
    ],
)
def test_setting_is_seen(text: str, found: set[str]) -> None:
    assert owners(ast.parse(text)) == found


def born_late(made: ast.ClassDef) -> set[str]:
    """Attributes that an object has not from the start: neither its class nor ``__init__`` names them."""
    methods = {node.name: node for node in made.body if isinstance(node, ast.FunctionDef)}
    first = [methods[name] for name in ("__init__", "__post_init__") if name in methods]
    called = {node.func.attr for method in first for node in ast.walk(method) if _is_own_call(node)}
    first += [methods[name] for name in called if name in methods]
    named = [node for node in made.body if isinstance(node, ast.Assign | ast.AnnAssign)]
    there = {target.id for node in named for target in ast.walk(node) if isinstance(target, ast.Name)}
    return set().union(*map(_set_by, methods.values())) - set().union(*map(_set_by, first)) - there


def _is_own_call(node: ast.AST) -> TypeGuard[Any]:
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id == "self"
    )


def _set_by(method: ast.FunctionDef) -> set[str]:
    return {
        node.attr
        for node in ast.walk(method)
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and ast.unparse(node.value) == "self"
    }


def test_objects_have_all_their_attributes_from_the_start() -> None:
    classes = [node for tree in MODULES.values() for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    assert {made.name: late for made in classes if (late := born_late(made))} == {
        "Silent": {"_keyboard_eof"}
    }  # blessed's
