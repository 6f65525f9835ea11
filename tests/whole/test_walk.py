"""The scripts in docs/walk run without a network and print what they teach."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

WALK = Path(__file__).resolve().parents[2] / "docs" / "walk"
PRINTS = {
    "01_story.py": r"^2284 words in 172 sentences and 6 runs$",
    "02_features.py": r"^tiny: layers 00, 01, 02, 03 of width 32$",
    "03_recording.py": r"^The first scan begins at -8 s, the story at 0 s; ",
    "04_design.py": r"^AlignmentError: 'duration' has no row for 1 of 172 units, first 'run-2/sentence-003'",
    "05_encoding.py": r"^Found at p ≤ .05, corrected: (39|40) of 40 planted, [01] of 200 silent$",
    "06_compare.py": r"^2\. No difference: within ±0.01 at every layer \(8 subjects\)\.$",
    "07_report.py": r"^Written: cleaning.tsv, figures, kept, manifest.json, maps, report.html, scores.tsv, summary.json$",
    "08_new_feature.py": r"^syllables +0\.\d+ +-?0\.0\d +0\.[6-9]",
    "09_new_corpus.py": r"^duration +0\.[5-7]\d +0\.[5-7]",
}


def test_every_walkthrough_is_run_here():
    assert sorted(path.name for path in WALK.glob("*.py")) == sorted(PRINTS)


@pytest.mark.parametrize("name", PRINTS)
def test_a_walkthrough_has_at_most_60_lines(name):
    assert len((WALK / name).read_text(encoding="utf-8").splitlines()) <= 60


@pytest.mark.parametrize("name", PRINTS)
def test_a_walkthrough_runs_and_prints_what_it_teaches(name, tmp_path):
    home = tmp_path / "home"  # nothing of the user's is found, and nothing is fetched
    environment = {
        "LANGCORTEX_CACHE": str(tmp_path / "cache"),
        "HF_HOME": str(home),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "PYTHONIOENCODING": "utf-8",
    }
    done = subprocess.run(
        [sys.executable, str(WALK / name)],
        cwd=tmp_path,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert re.search(PRINTS[name], done.stdout, re.MULTILINE), done.stdout
    assert not re.search("langcortex.*Warning", done.stderr), done.stderr
    # a walkthrough leaves nothing where it was started
    assert {path.name for path in tmp_path.iterdir()} <= {"cache", "home"}
