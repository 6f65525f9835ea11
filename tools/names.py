"""List names that are no nouns: determiners, participles and fillers; and docstrings that begin with Give, Say or Tell.

    python tools/names.py [PATH ...]

Every binding counts: assignments, loop variables, parameters, attributes, functions and classes. Without a PATH, the
package is read. The exit code is 1 where anything is listed.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

DETERMINERS = [
    "any",
    "both",
    "each",
    "either",
    "every",
    "neither",
    "no",
    "one",
    "other",
    "others",
    "own",
    "same",
    "some",
    "such",
    "that",
    "this",
    "those",
    "whole",
    "rest",
]
PARTICIPLES = [
    "found",
    "made",
    "said",
    "told",
    "taken",
    "given",
    "asked",
    "wanted",
    "heard",
    "shown",
    "known",
    "kept",
    "held",
    "drawn",
    "learnt",
]
FILLERS = ["item", "val", "vals", "res", "tmp", "temp", "data2", "thing", "things", "stuff", "foo", "obj"]
ENTITIES = ["res"]  # parameters that are BIDS entities, and so settings
BANNED = frozenset([*DETERMINERS, *PARTICIPLES, *FILLERS])
OPENINGS = ("Give ", "Gives ", "Say ", "Says ", "Tell ", "Tells ", "Ask ")


def bindings(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield the line and the name of everything that a module binds, leading underscores removed."""
    for node in ast.walk(tree):
        name: str | None = None
        match node:
            case ast.Name(ctx=ast.Store()):
                name = node.id
            case ast.Attribute(ctx=ast.Store()):
                name = node.attr
            case ast.FunctionDef() | ast.ClassDef():
                name = node.name
            case ast.arg():
                name = None if node.arg in ENTITIES else node.arg
            case ast.alias(asname=str()):
                name = node.asname
        if name:
            yield getattr(node, "lineno", 0), name.lstrip("_").lower()


def openings(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield the line and the first line of every docstring that begins with a banned verb."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module):
            text = ast.get_docstring(node) or ""
            if text.startswith(OPENINGS):
                yield getattr(node, "lineno", 1), text.splitlines()[0]


def main(paths: list[str]) -> int:
    """Print what is banned, one line per place, and return the exit code."""
    places = [Path(path) for path in paths] or [Path(__file__).resolve().parents[1] / "src"]
    files = sorted(file for place in places for file in ([place] if place.is_file() else place.rglob("*.py")))
    count = 0
    for file in files:
        tree = ast.parse(file.read_text(encoding="utf-8"))
        listed = [(line, f"the name '{name}'") for line, name in bindings(tree) if name in BANNED]
        listed += [(line, f"the docstring '{text}'") for line, text in openings(tree)]
        for line, what in sorted(listed):
            print(f"{file}:{line}: {what}")
        count += len(listed)
    print(f"{count} in {len(files)} files")
    return int(count > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
