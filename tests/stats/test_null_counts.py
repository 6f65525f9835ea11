"""Counting nulls as they come equals counting them all at once; corrections against statsmodels."""

import numpy as np
import pytest
from scipy import stats

from langcortex.stats import null_counts
from langcortex.stats.null_counts import MeanNulls, NullCounts, adjust_p, false_discovery
from reference.nulls import p_corrected, p_values


def test_p_is_never_zero_and_ties_count_against_the_target():
    null = np.array([[0.1, 0.5, 0.9, 0.0], [0.2, 0.5, 0.9, 0.0], [0.3, 0.5, 0.9, 0.0]])
    p = p_values(np.array([0.4, 0.5, 0.1, np.nan]), null)
    np.testing.assert_allclose(p, [0.25, 1.0, 1.0, np.nan])


def test_false_discovery_equals_benjamini_and_hochberg_written_out(rng):
    p = np.concatenate([rng.uniform(0, 1, 80), rng.uniform(0, 0.002, 20)])
    ranked = np.sort(p)
    below = np.flatnonzero(ranked <= 0.05 * np.arange(1, 101) / 100)
    np.testing.assert_array_equal(false_discovery(p), p <= ranked[below.max()])
    with_gaps = np.full(150, np.nan)
    with_gaps[25:125] = p
    np.testing.assert_array_equal(false_discovery(with_gaps)[25:125], false_discovery(p))
    assert not false_discovery(np.full(3, np.nan)).any()


def _count(true, null, studentise=True, batch=7, columns=5):
    counts = NullCounts(true, len(null))
    for first in range(0, len(null), batch):
        for start in range(0, true.shape[-1], columns):
            part = slice(start, min(start + columns, true.shape[-1]))
            counts.add(null[first : first + batch, ..., part], first, part)
    return counts.significance("rows", "test", "0", studentise)


def test_one_layer_gives_the_p_of_all_nulls_at_once(rng):
    true, null = rng.standard_normal(12) + 1, rng.standard_normal((99, 12))
    true[3] = np.nan
    test = _count(true, null)
    np.testing.assert_allclose(test.p, p_values(true, null))
    np.testing.assert_allclose(test.p_corrected, p_corrected(true, null))


def test_the_correction_over_layers_is_the_largest_of_standardised_nulls(rng):
    width = np.array([1.0, 10.0, 0.1])[:, None]
    true, null = width * (rng.standard_normal((3, 8)) + 1), width * rng.standard_normal((99, 3, 8))
    values = np.concatenate([true[None], null])
    z = (values - values.mean(axis=(0, 2))[:, None]) / values.std(axis=(0, 2))[:, None]
    largest = z[1:].max(axis=(1, 2))
    expected = (1 + (largest[:, None, None] >= z[0]).sum(axis=0)) / 100
    test = _count(true, null)
    np.testing.assert_allclose(test.p_corrected, expected)
    assert test.resampling.correction == "largest over targets and layers, each layer standardised"
    # without it the widest layer alone decides
    plain = _count(true, null, studentise=False)
    assert plain.p_corrected[2].min() > 0.9
    assert test.p_corrected[2].min() < plain.p_corrected[2].min()


def test_the_family_wise_rate_is_kept_over_targets_and_layers_of_unequal_width(rng):
    width = np.array([1.0, 5.0])[:, None]
    tests = [
        _count(
            width * rng.standard_normal((2, 10)),
            width * rng.standard_normal((39, 2, 10)),
            batch=39,
            columns=10,
        )
        for _ in range(600)
    ]
    wrong = np.mean([(t.p_corrected <= 0.05).any() for t in tests])
    assert stats.binomtest(round(wrong * 600), 600, 0.05).pvalue > 0.001


def test_undefined_targets_and_nulls_are_nan_and_touch_no_other(rng):
    true, null = rng.standard_normal((2, 6)), rng.standard_normal((19, 2, 6))
    clean = _count(np.delete(true, [1, 4], axis=1), np.delete(null, [1, 4], axis=2))
    true[:, 1] = np.nan
    null[:, :, 1] = 50.0
    null[:, :, 4] = np.nan
    test = _count(true, null)
    assert np.isnan(test.p[:, [1, 4]]).all()
    assert np.isnan(test.p_corrected[:, [1, 4]]).all()
    np.testing.assert_allclose(np.delete(test.p, [1, 4], axis=1), clean.p)


def test_counts_keep_no_maps_of_nulls():
    counts = NullCounts(np.zeros((3, 1000)), 5000)
    n_bytes = sum(v.nbytes for v in vars(counts).values() if isinstance(v, np.ndarray))
    assert n_bytes < 5000 * 1000


def test_adjusted_p_are_those_of_statsmodels(rng):
    multitest = pytest.importorskip("statsmodels.stats.multitest")
    p = np.concatenate([rng.uniform(size=60), rng.uniform(0, 1e-3, 12)])
    np.testing.assert_allclose(adjust_p(p), multitest.multipletests(p, method="fdr_bh")[1])
    gaps = np.full((2, 72), np.nan)
    gaps[1] = p
    np.testing.assert_allclose(adjust_p(gaps)[1], adjust_p(p))
    assert np.isnan(adjust_p(gaps)[0]).all()


def _test_of_means(trues, nulls, size=4):
    mean = MeanNulls(nulls[0].shape[0], len(trues), trues[0].shape)
    for true, null in zip(trues, nulls, strict=True):
        mean.begin_subject(true)
        for first in range(0, true.shape[1], size):
            part = slice(first, min(first + size, true.shape[1]))
            mean.add_nulls(part, null[:, :, part].astype(np.float32))
    return mean.significance("rows within runs", "test", "0")


@pytest.mark.parametrize("n_subjects", [1, 3])
@pytest.mark.parametrize("on_disk", [False, True])
def test_p_of_the_mean_over_subjects_is_that_of_all_mean_nulls(rng, n_subjects, on_disk, monkeypatch):
    if on_disk:
        monkeypatch.setattr(null_counts, "SCRATCH_BYTES", 0)
        monkeypatch.setattr(null_counts, "READ_BYTES", 1)
    trues = [rng.standard_normal((1, 11)) + 1 for _ in range(n_subjects)]
    nulls = [rng.standard_normal((99, 1, 11)) for _ in range(n_subjects)]
    test = _test_of_means(trues, nulls)
    true, null = np.mean(trues, axis=0)[0], np.mean(nulls, axis=0)[:, 0]
    np.testing.assert_allclose(test.value[0], true)
    np.testing.assert_allclose(test.p[0], p_values(true, null))
    np.testing.assert_allclose(test.p_corrected[0], p_corrected(true, null))


def test_a_subject_without_a_score_is_left_out_of_the_mean_of_that_target(rng):
    trues, nulls = rng.standard_normal((2, 1, 5)), rng.standard_normal((2, 49, 1, 5))
    trues[1, 0, 2], nulls[1, 7, 0, 3] = np.nan, np.nan
    trues[:, 0, 4] = np.nan
    test = _test_of_means(trues, nulls)
    np.testing.assert_allclose(test.value[0, 2:4], trues[0, 0, 2:4])
    np.testing.assert_allclose(test.p[0, 2:4], p_values(trues[0, 0, 2:4], nulls[0, :, 0, 2:4]))
    assert np.isnan(test.p[0]).tolist() == [False, False, False, False, True]


def test_several_layers_of_a_mean_are_corrected_together(rng):
    trues, nulls = rng.standard_normal((2, 3, 6)), rng.standard_normal((2, 49, 3, 6))
    test = _test_of_means(trues, nulls)
    assert test.p.shape == (3, 6)
    assert (test.p_corrected >= test.p - 1e-12).all()
    assert "targets and layers" in test.resampling.correction
