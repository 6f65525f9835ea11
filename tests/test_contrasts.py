"""Pairs of models of a finished study: paired by unit, widths that differ are said, several pairs are corrected."""

import numpy as np
import pandas as pd
import pytest
from statsmodels.stats.multitest import multipletests

from langcortex.comparison import corrected_over_pairs, holm
from langcortex.contrasts import chosen_pairs, pairs_by_layer, pairs_of
from langcortex.protocol import Protocol
from langcortex.results import COLUMNS, Results
from langcortex.settings import make_study


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
    assert pairs_of(_study(), made()) == [("a", "b")]
    assert pairs_of(_study(pairs=[("c", "b")]), made()) == [("c", "b")]
    assert pairs_of(_study(), made(gains={"a": 0.0})) == []


def test_a_planted_difference_is_found_at_the_chosen_layer_and_none_is_none(made):
    study = _study(pairs=[("b", "a"), ("c", "a")])
    better, same = chosen_pairs(study, made())
    assert better.effect[0] == pytest.approx(0.05, abs=0.01)
    assert better.p_corrected[0] <= 0.05
    assert same.p_corrected[0] > 0.05
    assert same.verdict.startswith("No difference at the layer chosen in training")
    assert (better.n_units, better.unit, better.tested.correction) == (8, "subjects", "Holm over 2 pairs")
    assert better.interval.n == 500


def test_one_subject_is_compared_over_runs_with_the_same_numbers(made):
    results = made(subjects=1, runs=6)
    (one,) = chosen_pairs(_study(), results)
    rows = results.scores[(results.scores.metric == "r_chosen") & (results.scores.run != "all")]
    wide = rows.pivot(index="run", columns="model", values="value")
    assert one.effect[0] == pytest.approx((wide.a - wide.b).mean())
    assert (one.unit, one.n_units) == ("runs", 6)
    assert "share training data" in one.caution


def test_widths_that_differ_and_several_pairs_are_said(made):
    results = made()
    _, silent = pairs_by_layer(_study(), results, {"a": 8, "b": 8, "c": 8})
    assert silent == []
    study = _study(pairs=[("a", "b"), ("a", "c")])
    found, said = pairs_by_layer(study, results, {"a": 4096, "b": 2048, "c": 4096})
    assert len(found) == 2
    assert any("a and b are fitted with 4,096 and 2,048 columns" in s and "protocol.pca" in s for s in said)
    assert not any("a and c are fitted" in s for s in said)
    assert any(s.startswith("2 pairs of models are compared") for s in said)


def test_units_without_a_score_are_left_out_by_name(made):
    results = made()
    table = results.scores
    table.loc[(table.subject == "03") & (table.model == "b") & (table.layer == 1), "value"] = np.nan
    (one,), said = pairs_by_layer(_study(), results, {"a": 1, "b": 1})
    assert one.n_units == 7
    assert "1 of 8 subjects have a layer without a score and are left out, first '03'" in said[0]


def test_holms_steps_are_those_of_statsmodels(rng):
    p = rng.uniform(size=9) ** 3
    np.testing.assert_allclose(holm(p), multipletests(p, method="holm")[1])


def test_several_pairs_at_the_chosen_layers_are_corrected(made):
    found = chosen_pairs(_study(pairs=[("b", "a"), ("c", "a")]), made())
    raw = np.array([one.p[0] for one in found])
    np.testing.assert_allclose([one.p_corrected[0] for one in found], holm(raw))
    assert found[0].p_corrected[0] == pytest.approx(2 * raw[0])


def test_one_pair_has_nothing_to_correct_for(made):
    (one,) = chosen_pairs(_study(), made())
    assert corrected_over_pairs([one]) == (one,)
