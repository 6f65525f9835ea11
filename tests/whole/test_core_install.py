"""Without the extras, everything that needs one says in one sentence which, and the rest works."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

BLOCK = """
import sys
EXTRAS = {"torch", "transformers", "huggingface_hub", "tokenizers", "accelerate", "gguf", "numba", "wordfreq", "h5py", "xarray",
          "h5netcdf", "statsmodels", "mne", "bitsandbytes", "openneuro", "safetensors"}

import importlib.util

found = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name.partition(".")[0] in EXTRAS else found(name, package)

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in EXTRAS:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
"""
RUN = BLOCK + "from langcortex.cli import main\nsys.argv = ['langcortex', *sys.argv[1:]]\nmain()\n"


def call_core(*argv: object, code: str = RUN) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, argv)],
        capture_output=True, text=True, check=False, encoding="utf-8", env={**os.environ, "PYTHONIOENCODING": "utf-8"},
    )  # fmt: skip


@pytest.fixture
def study(planted_corpus: Callable[..., Path], tmp_path: Path) -> Path:
    return planted_corpus(tmp_path, ("01",), runs=3)


@pytest.mark.parametrize("command", ["run", "check", "demo"])
def test_a_command_names_the_extra(command: str, study: Path, tmp_path: Path) -> None:
    done = call_core(command, tmp_path / "new" if command == "demo" else study)
    assert done.returncode == 2, done.stderr
    told = [line for line in done.stderr.splitlines() if line.startswith(("error", "problem"))]
    assert len(told) == 1, done.stderr
    assert told[0].endswith(
        "Language models need the packages torch and transformers. Run: pip install 'langcortex[models]'"
    )
    assert "Traceback" not in done.stderr


def test_loading_a_model_names_the_extra(tmp_path: Path) -> None:
    code = f"{BLOCK}\nimport langcortex\ntry:\n    langcortex.load_model({str(tmp_path)!r})\nexcept langcortex.LangcortexError as e:\n    print(e)\n"
    done = call_core(code=code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("Run: pip install 'langcortex[models]'")


def test_torch_for_fits_is_named(study: Path) -> None:
    for command in ("run", "check"):
        done = call_core(
            command, study, "--set", "models=[]", "--set", "fit.on=torch", "--set", "compare.region=brain"
        )
        assert done.returncode == 2, done.stderr
        assert "Traceback" not in done.stderr
        assert "torch" in done.stderr


def test_a_study_of_controls_needs_no_extra(study: Path) -> None:
    changes = ["models=[]", "compare.region=brain", "protocol.n_nulls=0", "inference.mixed=false"]
    sets = [part for change in changes for part in ("--set", change)]
    done = call_core("check", study, *sets)
    assert done.returncode == 0, done.stderr
    done = call_core("run", study, *sets)
    assert done.returncode == 0, done.stderr
    assert (study.parent / "results" / "report.html").is_file()


@pytest.mark.parametrize("control", ["log_frequency"])
def test_a_control_that_needs_an_extra_is_a_problem_of_check(study: Path, control: str) -> None:
    for command in ("check", "run"):
        done = call_core(command, study, "--set", "models=[]", "--set", f'features.controls=["{control}"]')
        assert done.returncode == 2, done.stderr
        assert "wordfreq" in done.stderr
        assert "Traceback" not in done.stderr
