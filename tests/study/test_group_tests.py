"""Pairs of models of a finished study: paired by unit, widths that differ are said, several pairs are corrected."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from statsmodels.stats.multitest import multipletests

from langcortex.brain.space import Space
from langcortex.encoding.protocol import Protocol
from langcortex.results.results import COLUMNS, Results
from langcortex.stats.comparison import correct_over_pairs, holm
from langcortex.study.group_tests import (
    compare_by_layer,
    compare_chosen_layers,
    group_tests,
    mixed_models,
    model_pairs,
)
from langcortex.study.settings_file import make_study


@pytest.fixture
def made(rng):
    """Results of three models, eight subjects and three layers, b above a, c as a."""

    def make(subjects=8, runs=3, gains=None):
        gains = gains or {"a": 0.0, "b": 0.05, "c": 0.0}
        own = rng.normal(0.1, 0.02, (subjects, runs))
        rows = []
        for model, gain in gains.items():
            for s in range(subjects):
                for layer in (0, 1, 2, None):
                    r = own[s] + gain + rng.normal(0, 0.004, runs)
                    metric = "r" if layer is not None else "r_chosen"
                    for run, value in [("all", r.mean()), *((f"run-{k}", v) for k, v in enumerate(r))]:
                        rows.append((f"{s:02d}", run, model, layer, "brain", metric, float(value)))
        return Results(
            name="x", settings={}, protocol=Protocol(), counts={}, models=tuple(gains), controls=(),
            scores=pd.DataFrame(rows, columns=COLUMNS), maps={}, layers={m: np.arange(3) for m in gains}, chosen={}, p={},
            delays={}, chosen_layers={}, comparisons=(), space=None, versions={},
        )  # fmt: skip

    return make


def _study(**compare):
    models = [{"source": name, "name": name} for name in "abc"]
    return make_study({"seed": 5, "models": models, "compare": compare, "inference": {"n_resamples": 500}})


def test_the_first_two_models_are_the_pair_unless_others_are_named(made):
    assert model_pairs(_study(), made()) == [("a", "b")]
    assert model_pairs(_study(pairs=[("c", "b")]), made()) == [("c", "b")]
    assert model_pairs(_study(), made(gains={"a": 0.0})) == []


def test_a_planted_difference_is_found_at_the_chosen_layer_and_none_is_none(made):
    study = _study(pairs=[("b", "a"), ("c", "a")])
    better, same = compare_chosen_layers(study, made())
    assert better.effect[0] == pytest.approx(0.05, abs=0.01)
    assert better.p_corrected[0] <= 0.05
    assert same.p_corrected[0] > 0.05
    assert same.verdict.startswith("No difference at the layer chosen in training")
    assert (better.n_units, better.unit, better.p_resampling.correction) == (
        8,
        "subjects",
        "Holm over 2 pairs",
    )
    assert better.interval_resampling.n == 500


def test_one_subject_is_compared_over_runs_with_the_same_numbers(made):
    results = made(subjects=1, runs=6)
    (one,) = compare_chosen_layers(_study(), results)
    rows = results.scores[(results.scores.metric == "r_chosen") & (results.scores.run != "all")]
    wide = rows.pivot(index="run", columns="model", values="value")
    assert one.effect[0] == pytest.approx((wide.a - wide.b).mean())
    assert (one.unit, one.n_units) == ("runs", 6)
    assert "share training data" in one.caution


def test_widths_that_differ_and_several_pairs_are_said(made):
    results = made()
    _, silent = compare_by_layer(_study(), results, {"a": 8, "b": 8, "c": 8})
    assert silent == []
    study = _study(pairs=[("a", "b"), ("a", "c")])
    found, said = compare_by_layer(study, results, {"a": 4096, "b": 2048, "c": 4096})
    assert len(found) == 2
    assert any("a and b are fitted with 4,096 and 2,048 columns" in s and "protocol.pca" in s for s in said)
    assert not any("a and c are fitted" in s for s in said)
    assert any(s.startswith("2 pairs of models are compared") for s in said)


def test_units_without_a_score_are_left_out_by_name(made):
    results = made()
    table = results.scores
    table.loc[(table.subject == "03") & (table.model == "b") & (table.layer == 1), "value"] = np.nan
    (one,), said = compare_by_layer(_study(), results, {"a": 1, "b": 1})
    assert one.n_units == 7
    assert "1 of 8 subjects have a layer without a score and are left out, first '03'" in said[0]


def test_holms_steps_are_those_of_statsmodels(rng):
    p = rng.uniform(size=9) ** 3
    np.testing.assert_allclose(holm(p), multipletests(p, method="holm")[1])


def test_several_pairs_at_the_chosen_layers_are_corrected(made):
    found = compare_chosen_layers(_study(pairs=[("b", "a"), ("c", "a")]), made())
    raw = np.array([one.p[0] for one in found])
    np.testing.assert_allclose([one.p_corrected[0] for one in found], holm(raw))
    assert found[0].p_corrected[0] == pytest.approx(2 * raw[0])


def test_one_pair_has_nothing_to_correct_for(made):
    (one,) = compare_chosen_layers(_study(), made())
    assert correct_over_pairs([one]) == (one,)


N = 40


def _study_of_subjects(**inference):
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
    (a, b, difference), warnings = group_tests(_study_of_subjects(), results, maps)
    assert warnings == []
    for test in (a, b):
        assert (test.targets.p_corrected[:10] <= 0.05).all()
        assert not (test.targets.p_corrected[10:] <= 0.05).any()
        assert test.region_names == ("brain", "front", "back")
        assert test.regions.p_corrected[1] <= 0.05 < test.regions.p_corrected[2]
    assert (difference.name, difference.tail) == ("a − b", "two")
    assert not (difference.targets.p_corrected <= 0.05).any()
    assert a.targets.resampling.unit == "subjects"
    assert a.clusters is None


def test_four_people_are_not_asked_and_nobody_is_where_it_is_not_wanted():
    assert group_tests(_study_of_subjects(), *_planted(4)) == ((), [])
    assert group_tests(_study_of_subjects(group=False), *_planted()) == ((), [])
    results, maps = _planted()
    leaking = dataclasses.replace(results, protocol=Protocol(name="replication-2025", leaks=("x",)))
    assert group_tests(_study_of_subjects(), leaking, maps) == ((), [])


def test_subjects_with_other_targets_are_asked_about_regions():
    results, maps = _planted()
    (a, _, _), _ = group_tests(_study_of_subjects(), dataclasses.replace(results, space=None), maps)
    assert a.targets is None
    assert a.regions.p_corrected[1] <= 0.05


def test_clusters_grow_in_volumes_only_and_only_when_asked():
    results, maps = _planted(space="volume")
    (a, *_), warnings = group_tests(_study_of_subjects(tfce=True, n_resamples=100), results, maps)
    assert warnings == []
    assert (a.clusters.p_corrected[:10] <= 0.05).sum() >= 8
    columns, _ = _planted()
    (a, *_), warnings = group_tests(_study_of_subjects(tfce=True, n_resamples=100), columns, maps)
    assert a.clusters is None
    assert "no neighbours" in warnings[0]


def test_the_average_is_nobody():
    results, maps = _planted()
    average = results.scores[results.scores.subject == "00"].assign(subject="average", value=9.0)
    with_average = dataclasses.replace(results, scores=pd.concat([results.scores, average]))
    (one, *_), _ = group_tests(_study_of_subjects(), with_average, maps)
    (same, *_), _ = group_tests(_study_of_subjects(), results, maps)
    np.testing.assert_array_equal(one.regions.p, same.regions.p)
    assert one.n_subjects == 8


def test_the_mixed_model_has_a_row_a_model_and_says_why_it_is_not_there(monkeypatch):
    results, _ = _planted()
    found, _ = mixed_models(_study_of_subjects(), results)
    assert (found.models, found.n_subjects, found.n_runs, found.n_scores) == (("a", "b"), 8, 3, 48)
    assert found.low[0] < 0 < found.high[0]
    assert mixed_models(_study_of_subjects(mixed=False), results) == (None, [])
    assert mixed_models(_study_of_subjects(), _planted(4)[0]) == (None, [])
    monkeypatch.setattr("langcortex.study.group_tests.MIXED_ROWS", 10)
    assert (
        "it takes too long for 48 scores of subjects, runs and models"
        in mixed_models(_study_of_subjects(), results)[1][0]
    )


@pytest.mark.parametrize("seed", range(3))
def test_noise_is_found_about_as_often_as_the_level_says(seed):
    """Family-wise over 40 targets: in 20 studies of noise one is expected, and more than 5 hardly ever (p < .001)."""
    found = 0
    for k in range(20):
        rng = np.random.default_rng([seed, k])
        results, _ = _planted(rng=rng)
        silent = {m: list(0.02 * rng.standard_normal((8, N))) for m in "ab"}
        (a, *_), _ = group_tests(_study_of_subjects(n_resamples=100), results, silent)
        found += bool((a.targets.p_corrected <= 0.05).any())
    assert found <= 5
