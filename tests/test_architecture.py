"""The shape of the program: floors, imports, names, what pure modules may know, who sets what; its document."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections import Counter, defaultdict
from graphlib import CycleError
from pathlib import Path
from typing import Any, TypeGuard

import pytest

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "scripts"))

import architecture  # noqa: E402  it is beside, not in the path

MODULES = architecture.parsed_modules()
IMPORTS = {name: architecture.imported(tree) for name, tree in MODULES.items()}
GRAPH = architecture.import_graph(MODULES)
DOCUMENT = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")

MOST_MODULES, MOST_FLOORS, MOST_IMPORTS = 40, 10, 207
LONGEST_FUNCTION = 40  # lines

# What reads, writes, waits or asks for the time. All others are pure: what they say follows from what they were told.
IMPURE = {
    "manual",
    *(
        "alerts",
        "child",
        "collectors",
        "config",
        "conntrack_monitor",
        "deletion",
        "download",
        "flowlog",
        "geography",
        "geoip",
        "live",
        "names",
    ),
    *("past", "recording", "run", "screen", "source"),
}
PURE = MODULES.keys() - IMPURE
OUTSIDE = {"os", "subprocess", "select", "signal", "time", "blessed", "click", "maxminddb", "socket", "sys", "io"}
# csv writes into a StringIO; inet_pton only reads a text, localtime only reads a number.
ALLOWED = {"export": {"io"}, "columns": {"socket", "time"}}


# --- floors, imports, names -------------------------------------------------------------------------------------------


def test_the_house_has_few_rooms_and_floors() -> None:
    """An import counts wherever it stands: at the top, in a function, for type checkers only. A circle is an error."""
    assert len(MODULES) <= MOST_MODULES
    assert max(architecture.floors(GRAPH).values()) <= MOST_FLOORS


def test_rooms_know_few_others() -> None:
    assert sum(map(len, GRAPH.values())) <= MOST_IMPORTS


def test_a_circle_is_found_wherever_its_imports_stand() -> None:
    texts = {
        "one": "def f():\n    import two",
        "two": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from three import x",
        "three": "import json",
    }
    modules = {name: ast.parse(text) for name, text in texts.items()}
    assert architecture.floors(architecture.import_graph(modules)) == {"three": 1, "two": 2, "one": 3}
    modules["three"] = ast.parse("class A:\n    def f(self):\n        from one.of import them")
    with pytest.raises(CycleError):
        architecture.floors(architecture.import_graph(modules))


def test_no_name_is_defined_in_two_modules() -> None:
    places: dict[str, list[str]] = defaultdict(list)
    for module, tree in MODULES.items():
        for name in set(architecture.defined(tree.body)):
            places[name].append(module)
    assert {name: where for name, where in places.items() if len(where) > 1} == {}


@pytest.mark.parametrize("name", sorted(MODULES))
def test_a_name_of_a_module_has_one_value(name: str) -> None:
    """The second one would silently hold for what was written for the first."""
    assert [name for name, number in Counter(architecture.defined(MODULES[name].body)).items() if number > 1] == []


def test_definitions_are_seen_where_they_stand() -> None:
    text = "A, (B, C) = x\nd: int = 1\ntry:\n    E = 1\nexcept OSError:\n    F = 2\nclass G:\n    h = 1\ndef i():\n    j = 1\n"
    assert set(architecture.defined(ast.parse(text).body)) == {*"ABCdEFGi"}


@pytest.mark.parametrize("name", sorted(MODULES))
def test_functions_are_short(name: str) -> None:
    for node in ast.walk(MODULES[name]):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert (node.end_lineno or 0) - node.lineno < LONGEST_FUNCTION, f"{name}.py:{node.lineno} {node.name}"


# --- what each is for -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(MODULES))
def test_every_module_says_in_a_sentence_what_it_is_for(name: str) -> None:
    said = architecture.sentence(MODULES[name])
    assert re.fullmatch(r"[^|]{10,}[.?]", said), said  # a | would end the cell of the document's table
    assert not re.search(r"[.?!] +[A-Z]", said), said


def test_no_two_modules_are_for_the_same() -> None:
    said = [architecture.sentence(tree) for tree in MODULES.values()]
    assert len(set(said)) == len(said)


# --- what pure modules may know ---------------------------------------------------------------------------------------


def test_what_is_pure() -> None:
    assert not IMPURE - MODULES.keys()
    assert {"addresses", "columns", "filters", "flows", "health", "intake", "keys", "parse", "render", "view"} <= PURE


@pytest.mark.parametrize("name", sorted(PURE))
def test_pure_modules_know_nothing_of_the_outside(name: str) -> None:
    assert IMPORTS[name] & OUTSIDE <= ALLOWED.get(name, set())


@pytest.mark.parametrize("name", sorted(PURE))
def test_pure_modules_import_only_pure_ones(name: str) -> None:
    assert GRAPH[name] <= PURE


# --- what a start costs -----------------------------------------------------------------------------------------------


def imported_by(*words: str) -> set[str]:
    """The modules that a run of the program imports, by Python's own report."""
    command = [sys.executable, "-X", "importtime", str(ROOT / "conntrack_monitor.py"), *words]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, bool(done.stdout)) == (0, True), done.stderr[-500:]
    return set(re.findall(r"^import time:.*\| *(\S+)$", done.stderr, re.M))


def test_json_waits_for_nothing_that_only_a_screen_needs() -> None:
    lines = ROOT / "fixtures" / "captures" / "tcp-lifecycle" / "E.ext-id-ts.txt"
    found = imported_by("--no-config", "--replay", str(lines), "--json")
    assert {"export", "recording", "flows"} <= found  # the report can be read
    assert found & {"columns", "screen", "blessed", "wcwidth", "render", "live", "view", "keys", "panels"} == set()


def test_help_waits_for_neither_views_nor_databases() -> None:
    found = imported_by("--help")
    assert "click" in found
    assert found & {*MODULES, "blessed", "wcwidth", "maxminddb"} <= {"text", "vocabulary"}


# --- the document -----------------------------------------------------------------------------------------------------


def test_the_table_of_rooms_is_that_of_the_files() -> None:
    assert architecture.cut(DOCUMENT)[1] == architecture.table(MODULES), "stale: make architecture"


def places_of(text: str) -> list[str]:
    """What a document calls a place in a module: `columns.FLOW_COLUMNS`, `source.LiveSource.poll`."""
    found = re.findall(r"`([a-z_]+(?:\.[A-Za-z_]\w*){1,2})`", text)
    return [place for place in found if place.partition(".")[0] in MODULES and not place.endswith((".py", ".toml"))]


def exists(place: str) -> bool:
    module, *names = place.split(".")
    body = MODULES[module].body
    for name in names:
        if name not in set(architecture.defined(body)):
            return False
        body = next((node.body for node in body if isinstance(node, ast.ClassDef) and node.name == name), [])
    return True


@pytest.mark.parametrize("document", ["docs/architecture.md", "CONTRIBUTING.md", "RELEASE.md", "SECURITY.md"])
def test_places_that_a_document_names_are_there(document: str) -> None:
    found = places_of((ROOT / document).read_text(encoding="utf-8"))
    assert [place for place in found if not exists(place)] == []


def test_links_lead_somewhere() -> None:
    documents = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]
    assert len(documents) >= 7
    for document in documents:
        for target in re.findall(r"\]\(([^)#:]+)\)", document.read_text(encoding="utf-8")):
            assert (document.parent / target).exists(), f"{document.name}: {target}"


def test_it_says_where_to_change_things() -> None:
    """Questions that somebody asks who has never seen the code."""
    answers = dict(re.findall(r"^\| (.+?) \| (`.+) \|$", DOCUMENT.partition("## Where do I change")[2], re.M))
    for question, place in (
        ("width of a column", "columns.FLOW_COLUMNS"),
        ("words of a cure", "health.notices_of"),
        ("`Enter` does on a country", "keys._details"),
        ("how often the table is listed", "source._listing_pause"),
    ):
        assert [text for asked, text in answers.items() if question in asked and f"`{place}`" in text], question
    assert all(places_of(text) for text in answers.values())
    assert len(answers) >= 16


def test_a_place_is_found() -> None:
    assert all(map(exists, ["keys.BINDINGS", "flows.FlowTable.end_listing", "intake.SUCCESS", "columns.Column.rank"]))
    assert not any(map(exists, ["keys.NOWHERE", "flows.FlowTable.nothing", "keys.BINDINGS.nothing"]))


# --- habits -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(MODULES))
def test_no_shell_anywhere(name: str) -> None:
    for node in ast.walk(MODULES[name]):
        if isinstance(node, ast.keyword) and node.arg == "shell":
            pytest.fail(f"{name}.py:{node.lineno} asks for a shell")
        if isinstance(node, ast.Attribute) and node.attr in ("system", "popen") and isinstance(node.value, ast.Name):
            assert node.value.id != "os", f"{name}.py:{node.lineno}"


def test_commands_are_started_in_one_place() -> None:
    assert [name for name, found in IMPORTS.items() if found & {"subprocess", "pty", "multiprocessing"}] == ["child"]


@pytest.mark.parametrize("name", sorted(MODULES))
def test_nothing_swallows_every_error(name: str) -> None:
    for node in ast.walk(MODULES[name]):
        assert not (isinstance(node, ast.ExceptHandler) and node.type is None), f"{name}.py:{node.lineno}"


# --- nobody sets another's attributes ---------------------------------------------------------------------------------

# Whose attributes a module sets though they are not its own, by the name that it has there.
OTHERS = {
    "conntrack_monitor": {"ctx", "_parameter"},  # click's way of being told
    "flows": {"flow", "flow.group", "group"},  # the table's own records, set for each line that comes
    "grouping": {"row"},  # sums that are being added up
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
    assert {made.name: late for made in classes if (late := born_late(made))} == {}
