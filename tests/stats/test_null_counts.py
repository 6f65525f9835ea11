"""Nulls of a mean over subjects: what all nulls in memory would give, with none of them kept."""

import numpy as np
import pytest

from langcortex.stats import null_counts as subject_nulls
from langcortex.stats.null_counts import MeanNulls
from reference.nulls import p_corrected, p_values


def _added(trues, nulls, size=4):
    mean = MeanNulls(nulls[0].shape[0], len(trues), trues[0].shape)
    for true, null in zip(trues, nulls, strict=True):
        mean.begin(true)
        for first in range(0, true.shape[1], size):
            part = slice(first, min(first + size, true.shape[1]))
            mean.add(part, null[:, :, part].astype(np.float32))
    return mean.significance("rows within runs", "test", "0")


@pytest.mark.parametrize("n_subjects", [1, 3])
@pytest.mark.parametrize("on_disk", [False, True])
def test_it_counts_the_mean_of_subjects(rng, n_subjects, on_disk, monkeypatch):
    if on_disk:
        monkeypatch.setattr(subject_nulls, "SCRATCH_BYTES", 0)
        monkeypatch.setattr(subject_nulls, "READ_BYTES", 1)
    trues = [rng.standard_normal((1, 11)) + 1 for _ in range(n_subjects)]
    nulls = [rng.standard_normal((99, 1, 11)) for _ in range(n_subjects)]
    found = _added(trues, nulls)
    true, null = np.mean(trues, axis=0)[0], np.mean(nulls, axis=0)[:, 0]
    np.testing.assert_allclose(found.value[0], true)
    np.testing.assert_allclose(found.p[0], p_values(true, null))
    np.testing.assert_allclose(found.p_corrected[0], p_corrected(true, null))


def test_a_subject_without_a_score_of_a_target_is_left_out_of_its_mean(rng):
    trues, nulls = rng.standard_normal((2, 1, 5)), rng.standard_normal((2, 49, 1, 5))
    trues[1, 0, 2], nulls[1, 7, 0, 3] = np.nan, np.nan
    trues[:, 0, 4] = np.nan
    found = _added(trues, nulls)
    np.testing.assert_allclose(found.value[0, 2:4], trues[0, 0, 2:4])
    np.testing.assert_allclose(found.p[0, 2:4], p_values(trues[0, 0, 2:4], nulls[0, :, 0, 2:4]))
    assert np.isnan(found.p[0]).tolist() == [False, False, False, False, True]


def test_several_layers_are_corrected_together(rng):
    trues, nulls = rng.standard_normal((2, 3, 6)), rng.standard_normal((2, 49, 3, 6))
    found = _added(trues, nulls)
    assert found.p.shape == (3, 6)
    assert (found.p_corrected >= found.p - 1e-12).all()
    assert "targets and layers" in found.resampling.correction
