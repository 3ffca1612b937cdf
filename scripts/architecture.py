#!/usr/bin/env python3
"""Write the table of rooms in docs/architecture.md, from the modules themselves: `make architecture`."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DOCUMENT = ROOT / "docs" / "architecture.md"
BEGIN, END = "<!-- rooms: written by make architecture -->\n", "<!-- end of rooms -->\n"


def parsed_modules() -> dict[str, ast.Module]:
    """The program's modules, by name."""
    return {path.stem: ast.parse(path.read_text(encoding="utf-8")) for path in sorted(ROOT.glob("*.py"))}


def imported(tree: ast.AST) -> set[str]:
    """The first names of all imported modules: at the top, within functions, and for type checkers only."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add((node.module or "").partition(".")[0])
    return found


def import_graph(modules: Mapping[str, ast.AST]) -> dict[str, set[str]]:
    """Which of the modules each of them imports."""
    return {name: imported(tree) & modules.keys() for name, tree in modules.items()}


def floors(graph: Mapping[str, set[str]]) -> dict[str, int]:
    """The floor of each module: one above the highest that it imports. Raises CycleError."""
    found: dict[str, int] = {}
    for name in TopologicalSorter(graph).static_order():
        found[name] = 1 + max((found[other] for other in graph[name]), default=0)
    return found


def sentence(tree: ast.Module) -> str:
    """What the module is for: the first line of its docstring."""
    return (ast.get_docstring(tree) or "").partition("\n")[0]


def defined(body: list[ast.stmt]) -> Iterator[str]:
    """The names that a module or a class defines, also within `if`, `try`, `with` and loops."""
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            yield from (part.id for target in targets for part in ast.walk(target) if isinstance(part, ast.Name))
        for inner in ("body", "orelse", "finalbody") if not hasattr(node, "name") else ():
            yield from defined(getattr(node, inner, []))
        for handler in getattr(node, "handlers", []):
            yield from defined(handler.body)


def table(modules: Mapping[str, ast.Module]) -> str:
    graph = import_graph(modules)
    lines = ["| floor | room | what it is for | imports |", "| --- | --- | --- | --- |"]
    for name, floor in sorted(floors(graph).items(), key=lambda item: (item[1], item[0])):
        lines.append(f"| {floor} | `{name}` | {sentence(modules[name])} | {' '.join(sorted(graph[name]))} |")
    pairs = sum(map(len, graph.values()))
    return "\n".join(lines) + f"\n\n{len(graph)} rooms, {pairs} imports between them.\n"


def cut(document: str) -> tuple[str, str, str]:
    """What is before the table, the table, and what is after it."""
    before, begin, rest = document.partition(BEGIN)
    there, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{DOCUMENT.name} has no place for the table")
    return before + begin, there, end + after


def main() -> None:
    before, _, after = cut(DOCUMENT.read_text(encoding="utf-8"))
    DOCUMENT.write_text(before + table(parsed_modules()) + after, encoding="utf-8")


if __name__ == "__main__":
    main()
