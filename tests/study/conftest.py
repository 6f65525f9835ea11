"""Shared by the tests of a study: a corpus of tables whose responses follow the rate of words, and one of answers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from langcortex.brain.timing import hrf_weights
from langcortex.study.settings import Study
from langcortex.study.settings_file import make_study

RUNS = ("a", "b", "c")

MINE = '''
import numpy as np
from langcortex import Responses, Space
from langcortex.stimulus import make_story

NAMES = np.array(["x", "y"])

class Sentences:
    """Sixty sentences in three passages, each answered once; x follows how long a sentence is."""

    def __init__(self, missing=0):
        self.missing = missing

    def subjects(self):
        return ["p1", "p2"]

    def story(self):
        words, times, ends = {}, {}, {}
        for k, run in enumerate(("p-a", "p-b", "p-c")):
            lengths = np.random.default_rng(k).integers(3, 12, 20)
            words[run] = ["word"] * int(lengths.sum())
            ends[run] = np.repeat(np.arange(20), lengths).tolist()
            times[run] = np.arange(lengths.sum()) * 0.5
        return make_story(words, times, {r: np.full(len(t), 0.5) for r, t in times.items()}, sentence=ends)

    def runs(self, subject):
        return ["p-a", "p-b", "p-c"]

    def recording(self, subject, run):
        s = self.story().sentences
        rows = np.flatnonzero(s.run == run)[self.missing:][::-1]
        rng = np.random.default_rng([int(subject[1:]), ord(run[-1])])
        values = rng.standard_normal((len(rows), 2)).astype(np.float32)
        values[:, 0] += s.n_words[rows]
        return Responses(values, s.ids[rows], run, subject, Space("columns", NAMES))

def corpus(path, missing=0):
    return Sentences(missing)
'''


def speak(folder: Path, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Write three runs of words in bursts, with pauses, and return their onsets."""
    onsets = {}
    (folder / "words").mkdir()
    for run in RUNS:
        gaps = np.where(rng.random(700) < 0.08, rng.uniform(2.5, 8, 700), 0.35)
        times = np.cumsum(gaps)
        times = times[times < 300]
        lines = ["word\tonset\tduration"]
        for i, t in enumerate(times):
            if i and t - times[i - 1] > 1:
                lines.append(f"#\t{times[i - 1] + 0.3}\t{t - times[i - 1] - 0.3}")
            lines.append(f"w{i}{'.' if i % 6 == 5 else ''}\t{t}\t0.3")
        (folder / f"words/{run}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
        onsets[run] = times
    return onsets


@pytest.fixture
def folder(tmp_path: Path, rng: np.random.Generator) -> Path:
    """Two subjects whose first three targets follow the word rate; 160 scans of 2 s a run."""
    onsets = speak(tmp_path, rng)
    for subject in ("1", "2"):
        for run, times in onsets.items():
            scans = np.arange(160) * 2.0 + 1.0
            rate = np.asarray(
                hrf_weights(times, np.full(len(times), 0.3), scans, shape="impulse").sum(axis=1)
            )
            values = rng.standard_normal((160, 8)) * 0.8
            values[:, :3] += ((rate - rate.mean()) / rate.std()).reshape(-1, 1)
            table = pd.DataFrame(values, columns=[f"t{i}" for i in range(8)])
            table.to_csv(tmp_path / f"s{subject}_{run}.bold.tsv", sep="\t", index=False)
    return tmp_path


@pytest.fixture(scope="session")
def study() -> Callable[..., Study]:
    """Make a study of the corpus in a folder; every table adds to its settings."""

    def make(folder: Path, **tables: dict[str, object]) -> Study:
        values: dict[str, object] = {
            "story": {"files": "words/{run}.tsv"},
            "recording": {"files": "s{subject}_{run}.bold.tsv", "tr": 2.0},
            "features": {"controls": ["word_count"]},
            "protocol": {"confounds": [], "n_nulls": 0, "penalties": [0.1, 10.0]},
            "design": {"rows": "scans"},
        }
        for name, table in tables.items():
            values[name] = {**values.get(name, {}), **table}  # type: ignore[dict-item]
        values["story"] = {"files": "words/{run}.tsv", **tables.get("story", {})}
        return make_study(values, folder=folder)

    return make


@pytest.fixture
def own_corpus(tmp_path: Path) -> Path:
    """Write a user's corpus, ``mine:corpus``, of sentences that were answered one by one."""
    (tmp_path / "mine.py").write_text(MINE, encoding="utf-8")
    return tmp_path
