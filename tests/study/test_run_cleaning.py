"""A study says, run by run, what cleaning removed, and remarks on what a reader should know; check finds what run would meet."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from langcortex.errors import LangcortexError
from langcortex.study.check import check_study
from langcortex.study.run import run_study, write_results
from langcortex.study.settings import Study

MakeStudy = Callable[..., Study]
PATTERNS = {"confounds": "s{subject}_{run}.confounds.tsv", "confound_columns": ["trans_x", "a_comp_cor_*"]}


@pytest.fixture
def with_confounds(folder: Path, rng: np.random.Generator) -> Path:
    """Add tables of confounds whose components differ between runs, a constant one, and a target that counts scans."""
    for path in folder.glob("s*_*.bold.tsv"):
        table = pd.read_csv(path, sep="\t")
        table["t7"] = np.arange(len(table))
        table.to_csv(path, sep="\t", index=False)
        n = 2 if "_a" in path.name else 3
        confounds = pd.DataFrame(
            rng.standard_normal((len(table), n)), columns=[f"a_comp_cor_{i:02d}" for i in range(n)]
        )
        confounds["trans_x"], confounds["csf"] = 1.0, "text"
        confounds.to_csv(
            path.with_name(path.name.replace(".bold", ".confounds")), sep="\t", index=False, na_rep="n/a"
        )
    return folder


def test_a_report_says_run_by_run_what_was_removed(with_confounds: Path, study: MakeStudy) -> None:
    settings = study(with_confounds, recording=PATTERNS)
    results = run_study(settings)
    page = write_results(results, settings.output_folder).read_text(encoding="utf-8")
    table = pd.read_csv(settings.output_folder / "cleaning.tsv", sep="\t", dtype={"subject": str})
    assert table.subject.tolist() == ["1"] * 3 + ["2"] * 3
    assert table.run.tolist() == ["a", "b", "c"] * 2
    assert table.confounds.tolist() == [2, 3, 3] * 2
    assert (table.drifts == 6).all()
    assert table.degrees_of_freedom.tolist() == [160 - 1 - 6 - n for n in (2, 3, 3)] * 2
    assert (table.undefined_targets == 1).all()
    assert table.confounds_used[0] == "a_comp_cor_00, a_comp_cor_01"
    assert "Cleaning, run by run" in page
    assert "a_comp_cor_02" in page
    remarks = " ".join(results.warnings)
    assert "targets that are constant, or that a straight line" in remarks
    assert "were dropped (1: trans_x); 6 runs are like that" in remarks


def test_check_finds_confounds_that_run_would_refuse(with_confounds: Path, study: MakeStudy) -> None:
    settings = study(with_confounds, recording=PATTERNS | {"confound_columns": ["a_comp_cor_02"]})
    problem = "Run 'a' of subject '1': .*no column 'a_comp_cor_02'"
    assert any("a_comp_cor_02" in text for text in check_study(settings).problems)
    with pytest.raises(LangcortexError, match=problem):
        run_study(settings)


def test_milliseconds_are_refused_by_check_and_by_run(folder: Path, study: MakeStudy) -> None:
    settings = study(folder, recording={"tr": 2000.0})
    assert any("2000 looks like milliseconds (2 s)" in text for text in check_study(settings).problems)
    with pytest.raises(LangcortexError, match="looks like milliseconds"):
        run_study(settings)
