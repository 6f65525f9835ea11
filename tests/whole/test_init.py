"""The package itself: public names are pinned, each resolves, and importing it is quick."""

from __future__ import annotations

import importlib
import pkgutil
import subprocess
import sys
import types

import pytest

import langcortex

# change this list on purpose only, and tell users in CHANGELOG.md
PUBLIC = [
    "Cleaning",
    "Comparison",
    "Delays",
    "Design",
    "Encoding",
    "Features",
    "HRF",
    "LangcortexError",
    "Layers",
    "Protocol",
    "Recording",
    "Responses",
    "Results",
    "Scores",
    "Space",
    "Story",
    "Study",
    "align_responses",
    "align_scans",
    "align_sentences",
    "choose_delays",
    "compare",
    "control",
    "extract",
    "find_lag",
    "fit",
    "fit_layers",
    "load_model",
    "null_test",
    "read_recording",
    "read_story",
    "read_study",
    "run_study",
    "score",
    "write_results",
]
HEAVY = ("torch", "transformers", "nibabel", "nilearn", "matplotlib", "pandas", "scipy", "sklearn")


def test_the_public_names_are_these() -> None:
    assert sorted(langcortex.__all__) == sorted(PUBLIC)
    assert len(set(langcortex.__all__)) == len(PUBLIC)
    assert dir(langcortex) == sorted([*PUBLIC, "__version__"])


@pytest.mark.parametrize("name", PUBLIC)
def test_a_public_name_is_a_class_or_a_function_with_a_docstring(name: str) -> None:
    value = getattr(langcortex, name)
    assert not isinstance(value, types.ModuleType)
    assert callable(value)
    assert value.__name__ == name
    assert value.__module__.startswith("langcortex.")
    assert value.__doc__


def test_every_public_name_stays_itself_after_its_module_was_imported() -> None:
    """A module of the same name as a function would take its place."""
    for module in pkgutil.walk_packages(langcortex.__path__, "langcortex."):
        importlib.import_module(module.name)

    for name in PUBLIC:
        assert not isinstance(getattr(langcortex, name), types.ModuleType), name


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="No langcortex attribute regress"):
        langcortex.regress  # noqa: B018


@pytest.mark.parametrize(
    "statement",
    ["import langcortex", "from langcortex import errors", "import langcortex; langcortex.LangcortexError"],
)
def test_importing_the_package_loads_nothing_heavy(statement: str) -> None:
    code = f"import sys\n{statement}\nprint(*[m for m in {HEAVY} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_the_command_lines_help_loads_no_model_library() -> None:
    """`langcortex --help` must not take seconds."""
    code = (
        "import sys\nfrom langcortex import cli\nsys.argv = ['langcortex', 'init', '--help']\n"
        "try:\n    cli.main()\nexcept SystemExit:\n    pass\n"
        "print('HEAVY', *[m for m in ('torch', 'transformers', 'nilearn', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "HEAVY"
