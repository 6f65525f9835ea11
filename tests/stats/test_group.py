"""Tests over subjects: clusters of neighbours; the mixed model against the paired t test it must equal."""

import sys

import numpy as np
import pandas as pd
import pytest
from scipy import sparse, stats

from langcortex.brain.space import Space
from langcortex.errors import FitError
from langcortex.stats.group import fit_mixed_model, surface_adjacency, tfce
from langcortex.stats.sign_flips import sign_flip


def _volume(shape=(5, 5, 5)):
    mask = np.ones(shape, dtype=bool)
    return Space("volume", np.arange(mask.sum()).astype(str), mask, np.diag([3.0, 3.0, 3.0, 1.0]))


def test_neighbours_support_each_other_in_a_volume(rng):
    x = rng.standard_normal((12, 125))
    block = np.zeros((5, 5, 5), dtype=bool)
    block[1:4, 1:4, 1:4] = True
    x[:, block.ravel()] += 0.9
    clusters, alone = tfce(x, _volume(), rng, 200), sign_flip(x, rng, 200)
    inside = block.ravel()
    assert (clusters.p_corrected[inside] <= 0.05).mean() > (alone.p_corrected[inside] <= 0.05).mean()
    assert (clusters.p_corrected[~inside] <= 0.05).mean() < 0.2
    assert clusters.resampling.n == 200
    assert np.isnan(clusters.p).all()


def test_neighbours_support_each_other_on_a_surface(rng):
    pytest.importorskip("mne")
    x = rng.standard_normal((10, 40))
    x[:, 10:20] += 1.2
    chain = sparse.diags_array([np.ones(39), np.ones(39)], offsets=[-1, 1])
    space = Space("surface", np.arange(40).astype(str), hemispheres=(20, 20))
    clusters = tfce(x, space, rng, 300, adjacency=chain)
    assert (clusters.p_corrected[10:20] <= 0.05).mean() > 0.7
    assert (clusters.p_corrected[:8] > 0.05).all()


def test_without_mne_the_error_says_what_to_install(rng, monkeypatch):
    monkeypatch.setitem(sys.modules, "mne.stats", None)
    space = Space("surface", np.arange(4).astype(str), hemispheres=(2, 2))
    with pytest.raises(
        FitError, match=r"needs MNE, which is not installed\. Install it with: pip install mne"
    ):
        tfce(np.ones((4, 4)), space, rng)


def test_clusters_need_neighbours_and_no_gaps(rng):
    x = rng.standard_normal((5, 4))
    with pytest.raises(FitError, match="with columns has no neighbours"):
        tfce(x, Space("columns", np.arange(4).astype(str)), rng)
    x[0, 1] = np.nan
    with pytest.raises(FitError, match="1 of 4 targets are undefined in some subject"):
        tfce(x, _volume((2, 2, 1)), rng)
    pytest.importorskip("mne")
    with pytest.raises(FitError, match="only fsaverage5's mesh"):
        tfce(np.ones((4, 4)), Space("surface", np.arange(4).astype(str), hemispheres=(2, 2)), rng)


def test_fsaverage5_has_six_neighbours_nearly_everywhere():
    adjacency = surface_adjacency(
        Space("surface", np.arange(20484).astype(str), hemispheres=(10242, 10242))
    ).tocsr()
    count = np.diff(adjacency.indptr)
    assert (np.sort(np.unique(count)) == [5, 6]).all()
    assert (count == 5).sum() == 24  # the corners of two icosahedra
    assert abs(adjacency - adjacency.T).max() == 0
    assert adjacency[:10242, 10242:].nnz == 0


def _table(rng, n_subjects=8, n_runs=5, effect=0.02, slope=0.02, lost=0):
    s, r = 0.05 * rng.standard_normal(n_subjects), 0.03 * rng.standard_normal(n_runs)
    slopes = slope * rng.standard_normal((n_subjects, 2))
    rows = [
        (
            f"sub-{i}",
            f"run-{j}",
            m,
            0.1 + s[i] + r[j] + slopes[i, k] + effect * k + 0.02 * rng.standard_normal(),
        )
        for i in range(n_subjects)
        for j in range(n_runs)
        for k, m in enumerate(("base", "tuned"))
    ]
    table = pd.DataFrame(rows, columns=["subject", "run", "model", "score"])
    return table.sample(len(table) - lost, random_state=0)


def test_the_mixed_model_is_the_paired_t_test_where_nothing_is_missing(rng):
    """Balanced data with a slope for each subject: the estimate and its error are those over subjects' means."""
    pytest.importorskip("statsmodels")
    table = _table(rng)
    fit = fit_mixed_model(table, ["base", "tuned"])
    wide = table.pivot_table(index="subject", columns="model", values="score")
    d = wide.tuned - wide.base
    assert fit.effect[0] == pytest.approx(d.mean(), rel=1e-6)
    assert fit.error[0] == pytest.approx(d.std() / np.sqrt(8), rel=1e-3)
    assert fit.p[0] == pytest.approx(stats.ttest_1samp(d, 0).pvalue, rel=1e-2)
    assert fit.formula == "score ~ model + (1 | subject) + (1 | run) + (1 | subject:model)"
    assert (fit.n_subjects, fit.n_runs, fit.n_scores) == (8, 5, 80)
    assert fit_mixed_model(table, ["tuned", "base"]).effect[0] == pytest.approx(-fit.effect[0])


def test_without_slopes_runs_count_as_people(rng):
    pytest.importorskip("statsmodels")
    table = _table(rng, slope=0.05)
    narrow, wide = fit_mixed_model(table, slopes=False), fit_mixed_model(table)
    assert narrow.error[0] < 0.6 * wide.error[0]
    assert "subject × model" not in narrow.variances
    assert wide.variances["subject × model"] == pytest.approx(0.05, abs=0.03)


def test_missing_scores_are_left_out_and_the_effect_is_still_found(rng):
    pytest.importorskip("statsmodels")
    table = _table(rng, effect=0.1, slope=0.01, lost=15)
    table.iloc[0, 3] = np.nan
    fit = fit_mixed_model(table, ["base", "tuned"])
    assert fit.n_scores == 64
    assert fit.low[0] < 0.1 < fit.high[0]
    assert fit.p[0] < 0.001


def test_a_table_that_cannot_be_fitted_raises(rng, monkeypatch):
    table = _table(rng)
    with pytest.raises(FitError, match="no column 'score'"):
        fit_mixed_model(table.drop(columns="score"))
    with pytest.raises(FitError, match="No score is of a model called 'gpt'"):
        fit_mixed_model(table, ["base", "gpt"])
    with pytest.raises(FitError, match=r"There are two scores of .* Give one region and layer"):
        fit_mixed_model(pd.concat([table, table.iloc[:1]]))
    with pytest.raises(FitError, match="2 models, 2 subjects and 5 runs"):
        fit_mixed_model(table[table.subject.isin(["sub-0", "sub-1"])])
    monkeypatch.setitem(sys.modules, "statsmodels.regression.mixed_linear_model", None)
    with pytest.raises(FitError, match=r"pip install 'langcortex\[stats\]'"):
        fit_mixed_model(table)


def test_a_mixed_model_that_does_not_converge_has_no_numbers(rng, monkeypatch):
    from statsmodels.regression.mixed_linear_model import MixedLMResults

    rows = [
        (f"s{i}", f"r{j}", model, rng.standard_normal())
        for i in range(6)
        for j in range(3)
        for model in ("a", "b")
    ]
    monkeypatch.setattr(
        MixedLMResults, "converged", property(lambda self: False, lambda self, value: None), raising=False
    )
    model = fit_mixed_model(pd.DataFrame(rows, columns=["subject", "run", "model", "score"]))
    assert np.isnan([*model.effect, *model.low, *model.high, *model.p]).all()
    assert "did not converge, so it has no numbers" in " ".join(model.warnings)
