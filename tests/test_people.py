"""Several people: planted targets are found over subjects, silent ones are not, and too few people are not asked."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from langcortex.people import mixed, over_people
from langcortex.protocol import Protocol
from langcortex.results import COLUMNS, Results
from langcortex.settings import make_study
from langcortex.space import Space

N = 40


def _study(**inference):
    models = [{"source": name, "name": name} for name in "ab"]
    return make_study({"seed": 2, "models": models, "inference": {"n_resamples": 300, **inference}})


def _planted(n=8, rng=None, space="columns"):
    """Model a predicts the first ten targets of everybody; b is as good there and no better anywhere."""
    rng = np.random.default_rng(0) if rng is None else rng
    front = np.arange(N) < 10
    maps = {m: [0.1 * front + 0.02 * rng.standard_normal(N) for _ in range(n)] for m in "ab"}
    where = Space("columns", np.arange(N).astype(str), regions={"front": front, "back": ~front})
    if space == "volume":
        mask = np.ones((2, 4, 5), dtype=bool)
        where = Space("volume", where.names, mask, np.eye(4), regions=where.regions)
    rows = [
        (f"{s:02d}", run, m, None, region, "r_chosen", float(maps[m][s][inside].mean() + shift))
        for m in "ab"
        for s in range(n)
        for run, shift in [("all", 0.0), *((f"run-{k}", 0.01 * (k - 1)) for k in range(3))]
        for region, inside in (("brain", np.ones(N, dtype=bool)), ("front", front), ("back", ~front))
    ]
    results = Results(
        name="x", settings={}, protocol=Protocol(), counts={}, models=("a", "b"), controls=(),
        scores=pd.DataFrame(rows, columns=COLUMNS), maps={}, layers={}, chosen={}, p={}, delays={}, chosen_layers={},
        comparisons=(), space=where, versions={},
    )  # fmt: skip
    return results, maps


def test_planted_targets_and_regions_are_found_and_the_others_are_not():
    results, maps = _planted()
    (a, b, difference), warnings = over_people(_study(), results, maps)
    assert warnings == []
    for test in (a, b):
        assert (test.targets.p_corrected[:10] <= 0.05).all()
        assert not (test.targets.p_corrected[10:] <= 0.05).any()
        assert test.regions == ("brain", "front", "back")
        assert test.areas.p_corrected[1] <= 0.05 < test.areas.p_corrected[2]
    assert (difference.name, difference.tail) == ("a − b", "two")
    assert not (difference.targets.p_corrected <= 0.05).any()
    assert a.targets.resampled.unit == "subjects"
    assert a.clusters is None


def test_four_people_are_not_asked_and_nobody_is_where_it_is_not_wanted():
    assert over_people(_study(), *_planted(4)) == ((), [])
    assert over_people(_study(group=False), *_planted()) == ((), [])
    results, maps = _planted()
    leaking = dataclasses.replace(results, protocol=Protocol(name="replication-2025", leaks=("x",)))
    assert over_people(_study(), leaking, maps) == ((), [])


def test_subjects_with_other_targets_are_asked_about_regions():
    results, maps = _planted()
    (a, _, _), _ = over_people(_study(), dataclasses.replace(results, space=None), maps)
    assert a.targets is None
    assert a.areas.p_corrected[1] <= 0.05


def test_clusters_grow_in_volumes_only_and_only_when_asked():
    results, maps = _planted(space="volume")
    (a, *_), warnings = over_people(_study(tfce=True, n_resamples=100), results, maps)
    assert warnings == []
    assert (a.clusters.p_corrected[:10] <= 0.05).sum() >= 8
    columns, _ = _planted()
    (a, *_), warnings = over_people(_study(tfce=True, n_resamples=100), columns, maps)
    assert a.clusters is None
    assert "no neighbours" in warnings[0]


def test_the_average_is_nobody():
    results, maps = _planted()
    average = results.scores[results.scores.subject == "00"].assign(subject="average", value=9.0)
    with_average = dataclasses.replace(results, scores=pd.concat([results.scores, average]))
    (one, *_), _ = over_people(_study(), with_average, maps)
    (same, *_), _ = over_people(_study(), results, maps)
    np.testing.assert_array_equal(one.areas.p, same.areas.p)
    assert one.n_subjects == 8


def test_the_mixed_model_has_a_row_a_model_and_says_why_it_is_not_there(monkeypatch):
    results, _ = _planted()
    found, _ = mixed(_study(), results)
    assert (found.models, found.n_subjects, found.n_runs, found.n_scores) == (("a", "b"), 8, 3, 48)
    assert found.low[0] < 0 < found.high[0]
    assert mixed(_study(mixed=False), results) == (None, [])
    assert mixed(_study(), _planted(4)[0]) == (None, [])
    monkeypatch.setattr("langcortex.people.MIXED_ROWS", 10)
    assert "48 scores of subjects, runs and models take it too long" in mixed(_study(), results)[1][0]


@pytest.mark.parametrize("seed", range(3))
def test_noise_is_found_about_as_often_as_the_level_says(seed):
    """Family-wise over 40 targets: in 20 studies of noise one is expected, and more than 5 hardly ever (p < .001)."""
    found = 0
    for k in range(20):
        rng = np.random.default_rng([seed, k])
        results, _ = _planted(rng=rng)
        silent = {m: list(0.02 * rng.standard_normal((8, N))) for m in "ab"}
        (a, *_), _ = over_people(_study(n_resamples=100), results, silent)
        found += bool((a.targets.p_corrected <= 0.05).any())
    assert found <= 5
