"""A tiny study whose subjects, runs, regions, targets, models and controls have hostile names: nothing leaves the output folder."""

from __future__ import annotations

import html
from pathlib import Path

import pytest

from langcortex.results.results import Results
from langcortex.study.run import run_study, write_results
from langcortex.study.settings_file import make_study

LONG = "x" * 300
SUBJECTS = ("../../x", "<script>alert(1)</script>", "a\tb", LONG, "CON")
RUNS = ("../up", "<b>run</b>", "c\td")
REGIONS = ("../../region", "<img src=x>", "e\tf", LONG, "NUL")
MODEL = '<script>"model"\\..\\x\ty'
CORPUS = f"""
import numpy as np
from langcortex import Recording, Space
from langcortex.stimulus import make_story
SUBJECTS, RUNS, REGIONS = {SUBJECTS!r}, {RUNS!r}, {REGIONS!r}

class Hostile:
    def subjects(self):
        return list(SUBJECTS)

    def story(self):
        n = 60
        words = {{run: [f"w{{i}}" + "." * (i % 5 == 4) for i in range(n)] for run in RUNS}}
        onset = {{run: 4.0 + np.arange(n) + (np.arange(n) // 5) * 0.5 for run in RUNS}}
        return make_story(words, onset, {{run: np.full(n, 0.4) for run in RUNS}})

    def runs(self, subject):
        return list(RUNS)

    def recording(self, subject, run):
        rng = np.random.default_rng([SUBJECTS.index(subject), RUNS.index(run)])
        values = rng.standard_normal((60, 5)).astype(np.float32)
        inside = {{name: np.arange(5) == i for i, name in enumerate(REGIONS)}}
        return Recording(values, np.arange(60) * 2.0, 2.0, run, subject, Space("columns", np.array(REGIONS), regions=inside))

def corpus(path):
    return Hostile()
"""


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory, llama_folder: Path) -> tuple[Path, Results]:
    root = tmp_path_factory.mktemp("root")
    here = root / "deep" / "study"
    here.mkdir(parents=True)
    (here / "hostile.py").write_text(CORPUS, encoding="utf-8")
    values = {
        "name": "<script>study</script>",
        "jobs": 1,
        "data": {"corpus": "hostile:corpus"},
        "recording": {"clock": "trust"},
        "models": [
            {"source": str(llama_folder), "name": MODEL},
            {"source": str(llama_folder), "name": "CON"},
        ],
        "features": {
            "layers": [1],
            "controls": ["../../control", "<i>control</i>", LONG, "AUX"],
            "options": {
                "../../control": {"control": "word_count"},
                "<i>control</i>": {"control": "duration"},
                LONG: {"control": "letters"},
                "AUX": {"control": "word_rate"},
            },
        },
        "protocol": {"confounds": [], "n_nulls": 9, "penalties": [1.0, 100.0], "pca": 5},
        "partition": True,
        "fit": {"predictions": True},
        "inference": {"n_resamples": 100},
    }
    results = run_study(make_study(values, folder=here, allow_code=True))
    write_results(results, here / "results")
    return root, results


def test_every_file_lies_in_the_output_folder_under_a_safe_name(told: tuple[Path, Results]) -> None:
    root, results = told
    here = root / "deep" / "study"
    assert [p.name for p in root.iterdir()] == ["deep"]
    assert [p.name for p in (root / "deep").iterdir()] == ["study"]
    assert {p.name for p in here.iterdir()} - {"__pycache__"} == {"hostile.py", "results"}
    files = list((here / "results").rglob("*"))
    for path in files:
        assert not set(path.name) & set('<>:"|?*\\\t\n')
        assert path.name.split(".")[0].upper() not in {"CON", "NUL", "AUX"}
        assert len(path.name.encode()) < 200
    # two models and four controls, five subjects × two models: one file each
    maps = [p.name for p in (here / "results" / "maps").iterdir()]
    assert sum(name.endswith("_layer-01_stat-r.tsv") for name in maps) == 2
    assert sum(name.endswith("_stat-r.tsv") and "layer" not in name for name in maps) >= 4
    assert len(list((here / "results" / "fits").iterdir())) == len(SUBJECTS) * len(results.models)


def test_every_row_of_every_table_has_the_cells_of_its_header(told: tuple[Path, Results]) -> None:
    root, _ = told
    tables = list((root / "deep" / "study" / "results").rglob("*.tsv"))
    assert {"scores.tsv", "tokens.tsv", "partition.tsv", "group.tsv"} <= {path.name for path in tables}
    for path in tables:
        lines = path.read_text(encoding="utf-8").split("\n")
        assert lines.pop() == ""
        assert {line.count("\t") for line in lines} == {lines[0].count("\t")}, path


def test_the_report_shows_names_as_text(told: tuple[Path, Results]) -> None:
    root, _ = told
    page = (root / "deep" / "study" / "results" / "report.html").read_text(encoding="utf-8")
    for tag in ("<script>alert", "<script>study", '<script>"model', "<b>run", "<img src=x>", "<i>control"):
        assert tag not in page
    assert html.escape("<script>alert(1)</script>") in page
