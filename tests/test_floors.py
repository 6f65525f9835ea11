"""The layout of docs/architecture.md: entries, docstrings, tests beside modules, names that exist, code that is used."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "langcortex"
ROOMS = [
    "stimulus",
    "brain",
    "datasets",
    "features",
    "design",
    "ridge",
    "stats",
    "nulls",
    "encoding",
    "results",
    "report",
    "study",
    "audit",
    "simulation",
]
FILES = ["__init__.py", "cli.py", "errors.py", "arrays.py", "cache.py", "paths.py", "progress.py"]
WITHOUT_MODULE = (
    "whole",
    "reference",
    "fuzz",
)  # tests that cross rooms, and the plain code that numbers are compared with
PYTHON_ONLY = "From Python only"

# rooms in whose code tools/names.py finds nothing; a room is added when its names are done, and stays
NAMED_ROOMS: tuple[str, ...] = (
    "stimulus", "brain", "datasets", "features", "design", "ridge", "stats", "nulls", "encoding", "results",
    "report", "study", "audit", "simulation", "cli", "arrays", "cache", "paths", "progress", "errors",
)  # fmt: skip

# public code that nothing uses yet or any more: each entry is to be removed, used, or documented as "From Python only"
IDLE = {
    "datasets/reading_brain/fixations: read_fixations",
    "datasets/reading_brain/fixations: saccades",
    "encoding/null_test: null_scores",
    "features/models/capture: head_parts",
    "features/width: match_width",
    "features/width: widths_differ",
    "nulls/heldout_test: time_test",
}
PLANNED: set[str] = set()  # modules that the architecture draws and that are still to come

MODULES = sorted(PACKAGE.rglob("*.py"))
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md")),
             *sorted((ROOT / "docs").rglob("*.py")), *sorted((ROOT / "examples").rglob("*.*"))]  # fmt: skip


@cache
def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_the_top_of_the_package_has_14_rooms_and_7_files() -> None:
    entries = {path.name for path in PACKAGE.iterdir() if path.name != "__pycache__"}
    assert entries - {"__init__.pyi", "py.typed"} == {*ROOMS, *FILES}
    assert (len(ROOMS), len(FILES)) == (14, 7)


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_says_what_it_is_for(room: str) -> None:
    assert ast.get_docstring(parse(PACKAGE / room / "__init__.py"))
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    assert f"| `{room}` |" in page


def test_every_module_named_in_the_architecture_exists() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    paths = re.findall(rf"`((?:{'|'.join(ROOMS)})/\w[\w/]*)(?:\.py)?`", page)
    assert len(paths) > 40
    missing = [p for p in paths if not ((PACKAGE / f"{p}.py").is_file() or (PACKAGE / p).is_dir())]
    assert sorted({*missing} - PLANNED) == []


def test_every_test_file_has_a_module() -> None:
    tests = ROOT / "tests"
    orphans = []
    for path in sorted(tests.rglob("test_*.py")):
        folder = path.parent.relative_to(tests)
        whole = (Path(__file__).resolve(), tests / "test_faults.py")
        if folder.parts[:1] in [(name,) for name in WITHOUT_MODULE] or path in whole:
            continue
        words = path.stem.removeprefix("test_").split("_")
        # test_recording_cleaning.py tests `recording`, as test_recording.py does
        modules = (PACKAGE / folder / f"{'_'.join(words[:n])}.py" for n in range(1, len(words) + 1))
        if not any(module.is_file() for module in modules):
            orphans.append(relative(path))
    assert orphans == []


DOTTED = re.compile(r"\blangcortex(?:\.[A-Za-z_]\w*)+")
NOT_MODULES = re.compile(r"langcortex\.(?:py|toml|example|org|io)\b")


def dotted_names() -> Iterator[tuple[str, str]]:
    """Yield the file and the name of everything written as ``langcortex.…`` in documents, docstrings and messages."""
    for path in DOCUMENTS:
        if path.suffix in (".md", ".py", ".toml"):
            for name in DOTTED.findall(path.read_text(encoding="utf-8")):
                yield relative(path), name
    for path in MODULES:
        for node in ast.walk(parse(path)):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                for name in DOTTED.findall(node.value):
                    yield relative(path), name


def resolve(name: str) -> object:
    """Import the longest module of a dotted name and look up the others as attributes."""
    parts = name.split(".")
    for n in range(len(parts), 0, -1):
        try:
            value: object = importlib.import_module(".".join(parts[:n]))
        except ModuleNotFoundError:
            continue
        for attribute in parts[n:]:
            value = getattr(value, attribute)
        return value
    raise ModuleNotFoundError(name)


def test_every_dotted_name_in_documents_docstrings_and_messages_can_be_imported() -> None:
    broken = []
    for place, name in sorted(set(dotted_names())):
        if NOT_MODULES.match(name):
            continue
        try:
            resolve(name)
        except (AttributeError, ModuleNotFoundError):
            broken.append(f"{place}: {name}")
    assert broken == []


def public_definitions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.ClassDef]:
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            yield node


def names_used(tree: ast.Module) -> set[str]:
    """Collect every name, attribute and import in some code."""
    names: set[str] = set()
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name) | ast.Attribute(attr=name) | ast.alias(name=name):
                names.add(name)
    return names


def idle_code() -> list[str]:
    """List public functions and classes that nothing else uses, hands on, or documents as for Python only."""
    users = {path: names_used(parse(path)) for path in MODULES}
    handed_on = set().union(*(names_used(parse(path)) for path in PACKAGE.rglob("*.pyi")))
    idle = []
    for path in MODULES:
        tree = parse(path)
        if PYTHON_ONLY in (ast.get_docstring(tree) or ""):
            continue
        elsewhere = set().union(*(names for user, names in users.items() if user != path))
        for node in public_definitions(tree):
            if node.name in elsewhere | handed_on or PYTHON_ONLY in (ast.get_docstring(node) or ""):
                continue
            if isinstance(node, ast.FunctionDef) and node.decorator_list:  # a command
                continue
            if _is_used_beside_its_definition(tree, node):
                continue
            idle.append(f"{path.relative_to(PACKAGE).with_suffix('').as_posix()}: {node.name}")
    return idle


def _is_used_beside_its_definition(tree: ast.Module, definition: ast.FunctionDef | ast.ClassDef) -> bool:
    """Return whether other code of the same module uses a definition."""
    code = ast.Module([node for node in tree.body if node is not definition], [])
    return definition.name in names_used(code)


def test_every_public_function_and_class_is_used() -> None:
    assert sorted({*idle_code()} - IDLE) == []


def load_tool(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"_tool_{name}", ROOT / "tools" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("room", NAMED_ROOMS)
def test_names_are_nouns_of_the_field(room: str, capsys: pytest.CaptureFixture[str]) -> None:
    place = PACKAGE / room if (PACKAGE / room).is_dir() else PACKAGE / f"{room}.py"
    assert load_tool("names").main([str(place)]) == 0, capsys.readouterr().out
