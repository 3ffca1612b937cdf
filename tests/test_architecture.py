"""The shape of the program: pure modules stay pure, imports have no cycle, nobody starts a shell."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

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
