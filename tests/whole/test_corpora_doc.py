"""docs/corpora.md: every corpus is described, and the module it shows is a corpus as it stands."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from langcortex.datasets import CORPORA
from langcortex.study.run import run_study
from langcortex.study.settings_file import make_study

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "corpora.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", CORPORA)
def test_every_corpus_is_in_the_table_of_what_was_verified(name: str) -> None:
    assert f"| `{name}` |" in PAGE


def test_the_module_shown_is_a_corpus_of_at_most_40_lines(tmp_path: Path, rng: np.random.Generator) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(code.splitlines()) <= 40
    (tmp_path / "my_corpus.py").write_text(code, encoding="utf-8")
    (tmp_path / "words").mkdir()
    for run in ("a", "b", "c"):
        onset = np.cumsum(rng.uniform(0.3, 1.5, 100))
        words = [f"w{i}{'.' * (i % 5 == 4)}" for i in range(100)]
        table = pd.DataFrame({"word": words, "onset": onset, "duration": 0.25})
        table.to_csv(tmp_path / "words" / f"{run}.tsv", sep="\t", index=False)
        for subject in ("sub-1", "sub-2"):
            (tmp_path / subject).mkdir(exist_ok=True)
            values = pd.DataFrame(rng.standard_normal((90, 4)), columns=list("wxyz"))
            values.to_csv(tmp_path / subject / f"{run}.csv", index=False)
    study = make_study(
        {
            "data": {"corpus": "my_corpus:corpus", "options": {"cut": 1.5}},
            "features": {"controls": ["duration"]},
            "design": {"delays": [4.5, 6.0]},
            "protocol": {"confounds": [], "n_nulls": 0, "penalties": [1.0, 100.0]},
        },
        folder=tmp_path,
        allow_code=True,
    )
    results = run_study(study)
    assert results.source == {"citation": "My lab (2026)."}
    assert sorted(results.scores.subject.unique()) == ["sub-1", "sub-2"]
    assert results.counts["words"] == 300
