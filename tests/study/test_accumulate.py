"""What subjects add to a study: one row per number, maps averaged where they are defined, penalties at the edges."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from langcortex.brain.space import Space
from langcortex.encoding.scores import Encoding
from langcortex.results.results import COLUMNS
from langcortex.study.accumulate import MANY_REGIONS, StudyScores

SPACES: Any = SimpleNamespace(of_model={"m": ["m/layer-00", "m/layer-01"]})


def encoding(r: np.ndarray, subject: str = "01") -> Encoding:
    """Scores of two runs: r of each, and errors of half of the variance."""
    runs = np.array(["a", "b"])
    ones = np.ones_like(r)
    return Encoding("m/layer-01", subject, runs, runs, r, ones / 2, ones, ones, ones, r, np.array(["a", "b"]))


def space(n_regions: int) -> Space:
    regions = {f"region-{i}": np.array([True, False, False]) for i in range(n_regions)}
    return Space("columns", np.array(["x", "y", "z"]), regions=regions)


def test_a_score_is_one_row_under_its_names() -> None:
    scores = StudyScores(SPACES)
    scores.add_score(subject="01", run="a", model="m", layer=1, region="brain", metric="r", value=0.25)
    table = scores.table()
    assert table.columns.tolist() == COLUMNS
    assert table.to_dict("records") == [
        {"subject": "01", "run": "a", "model": "m", "layer": 1, "region": "brain", "metric": "r", "value": 0.25}
    ]  # fmt: skip


def test_an_encoding_is_scored_per_run_and_pooled_in_every_region() -> None:
    scores = StudyScores(SPACES)
    r = scores.add_encoding(
        encoding(np.array([[0.1, 0.2, np.nan], [0.3, 0.2, np.nan]])), "m", 1, space(1), ("r", "r2")
    )
    np.testing.assert_allclose(r, [0.2, 0.2, np.nan])
    table = scores.table().set_index(["run", "region", "metric"]).value
    assert len(table) == 3 * 2 * 2
    assert table["all", "brain", "r"] == pytest.approx(0.2)
    assert table["a", "region-0", "r"] == pytest.approx(0.1)
    assert table["b", "brain", "r"] == pytest.approx(0.25)
    assert table["all", "region-0", "r2"] == pytest.approx(0.5)


@pytest.mark.parametrize(("n_subjects", "recorded"), [(1, MANY_REGIONS + 2), (2, 2)])
def test_single_runs_of_many_regions_are_recorded_for_one_subject_only(
    n_subjects: int, recorded: int
) -> None:
    scores = StudyScores(SPACES, n_subjects, "region-3")
    scores.add_encoding(encoding(np.zeros((2, 3))), "m", 1, space(MANY_REGIONS + 1), ("r", "r2"))
    table = scores.table()
    assert len(table[(table.run == "all") & (table.metric == "r")]) == MANY_REGIONS + 2
    of_run = table[(table.run == "a") & (table.metric == "r")]
    assert len(of_run) == recorded
    assert {"brain", "region-3"} <= set(of_run.region)


def test_maps_are_averaged_over_the_subjects_where_they_are_defined() -> None:
    scores = StudyScores(SPACES, 2)
    scores.add_map("m", 1, 2, np.array([0.2, np.nan, np.nan]))
    scores.add_map("m", 1, 2, np.array([0.4, 0.3, np.nan]))
    scores.add_map("m", 1, 2, np.zeros(5))  # of another space: left out
    np.testing.assert_allclose(scores.maps()["m"], [[np.nan] * 3, [0.3, 0.3, np.nan]])


def test_penalties_at_both_edges_of_the_grid_are_counted_over_subjects() -> None:
    scores = StudyScores(SPACES, 2)
    assert scores.edge_shares() == {}
    scores.add_penalties("m", np.array([[1.0, 10.0, np.nan]]), (1.0, 10.0, 100.0))
    scores.add_penalties("m", np.array([[100.0, np.float32(100.0)]]), (1.0, 10.0, 100.0))
    assert scores.edge_shares() == {"m": (0.25, 0.5)}
