"""Cleaning is one regression on drifts and confounds: the high-pass filter holds whatever the confounds are."""

from __future__ import annotations

import numpy as np
import pytest
from nilearn.glm.first_level import make_first_level_design_matrix

from langcortex.brain.cleaning import clean_targets, cosine_drifts, nuisance_model
from langcortex.errors import RecordingError

TR = 2.0


def _reference(values, n_scans, confounds, high_pass=1 / 128, keep=None):
    """Residuals of ordinary least squares on nilearn's own design matrix."""
    frame = make_first_level_design_matrix(
        np.arange(n_scans) * TR, drift_model="cosine", high_pass=high_pass
    ).to_numpy()
    design = np.column_stack([frame, np.arange(n_scans), confounds])
    if keep is not None:
        design = design[keep]
    coefficients = np.linalg.lstsq(design, values, rcond=None)[0]
    return values - design @ coefficients


def _worst(values, cleaned, expected):
    return np.abs(cleaned - expected).max() / values.std()


@pytest.mark.parametrize("n_scans", [30, 150, 300])
@pytest.mark.parametrize(
    "kind", ["none", "rising", "sinking", "walks", "copies", "cosine", "spikes", "huge", "tiny"]
)
def test_it_equals_least_squares_whatever_the_confounds_are(rng, n_scans, kind):
    confounds = {
        "none": np.empty((n_scans, 0)),
        "rising": np.linspace(0, 1, n_scans)[:, None] + 0.01 * rng.standard_normal((n_scans, 1)),
        "sinking": -np.linspace(0, 1, n_scans)[:, None] + 0.01 * rng.standard_normal((n_scans, 1)),
        "walks": np.cumsum(rng.standard_normal((n_scans, 6)), axis=0),
        "copies": np.repeat(rng.standard_normal((n_scans, 3)), 3, axis=1),
        "cosine": cosine_drifts(n_scans, TR, 1 / 128)[:, :1] + 1e-6 * rng.standard_normal((n_scans, 1)),
        "spikes": np.eye(n_scans)[:, [0, 3, 7]],
        "huge": 1e6 + 1e5 * rng.standard_normal((n_scans, 4)),
        "tiny": 1e-6 * rng.standard_normal((n_scans, 4)),
    }[kind]
    values = 1e3 + 50 * np.cumsum(rng.standard_normal((n_scans, 40)), axis=0)
    model = nuisance_model(n_scans, TR, "run", high_pass=1 / 128, confounds=confounds)
    cleaned, report = clean_targets(values, model, standardise=False)
    assert _worst(values, cleaned, _reference(values, n_scans, confounds)) < 1e-6
    assert report.n_drifts == 1 + cosine_drifts(n_scans, TR, 1 / 128).shape[1]
    assert report.n_confounds + len(report.dropped) == confounds.shape[1]


@pytest.mark.parametrize("slope", [-1.0, 1.0])
def test_a_regressor_that_drifts_does_not_switch_the_filter_off(rng, slope):
    """The library that cleaned before dropped every cosine where a confound correlates above .9 with one."""
    n_scans = 200
    slow = np.sin(2 * np.pi * np.arange(n_scans) * TR / 150)
    values = rng.standard_normal((n_scans, 1)) + 3 * slow[:, None]
    drift = slope * np.linspace(0, 1, n_scans)[:, None] + 0.002 * rng.standard_normal((n_scans, 1))
    model = nuisance_model(n_scans, TR, "run", high_pass=1 / 128, confounds=drift)
    cleaned, _ = clean_targets(values, model, standardise=True)
    assert abs(np.corrcoef(cleaned[:, 0], slow)[0, 1]) < 0.2


def test_the_cosines_are_those_of_nilearn():
    for n_scans, high_pass in ((30, 1 / 128), (150, 1 / 128), (300, 0.01), (299, 1 / 90)):
        frame = make_first_level_design_matrix(
            np.arange(n_scans) * TR, drift_model="cosine", high_pass=high_pass
        ).to_numpy()[:, :-1]
        cosines = cosine_drifts(n_scans, TR, high_pass)
        assert cosines.shape == frame.shape
        np.testing.assert_allclose(cosines, frame * np.sqrt(n_scans / 2), atol=1e-9)


def test_a_confound_in_the_span_of_others_is_dropped_and_named(rng):
    x = rng.standard_normal((100, 3))
    confounds = np.column_stack([x, x @ [1.0, -2.0, 0.5], np.ones(100), np.arange(100.0)])
    names = ["a", "b", "c", "sum", "constant", "trend"]
    report = nuisance_model(100, TR, "run", confounds=confounds, names=names).report
    assert report.confounds == ("a", "b", "c")
    assert report.dropped == ("sum", "constant", "trend")
    assert report.degrees_of_freedom == 100 - 1 - 1 - 3


@pytest.mark.parametrize("n_confounds", [145, 149, 160, 300])
def test_regressors_that_leave_nothing_are_an_error_with_the_numbers(rng, n_confounds):
    confounds = rng.standard_normal((150, n_confounds))
    with pytest.raises(
        RecordingError, match=r"run-1: 14\d confounds and 5 drift regressors leave nothing of 150"
    ):
        nuisance_model(150, TR, "run-1", high_pass=1 / 128, confounds=confounds)


def test_many_copies_of_few_confounds_leave_enough(rng):
    confounds = np.tile(rng.standard_normal((150, 6)), 50)
    report = nuisance_model(150, TR, "run", confounds=confounds).report
    assert (report.n_confounds, len(report.dropped)) == (6, 294)


def test_a_target_that_the_model_explains_is_undefined_and_touches_no_other(rng):
    n_scans = 150
    motion = rng.standard_normal((n_scans, 2))
    values = rng.standard_normal((n_scans, 6)).astype(np.float32)
    model = nuisance_model(n_scans, TR, "run", high_pass=1 / 128, confounds=motion)
    plain, _ = clean_targets(values, model, standardise=True)
    odd = values.copy()
    odd[:, 1] = np.arange(n_scans)  # an index
    odd[:, 2] = 1e4 + 0.1 * np.arange(n_scans)  # a counter in float32
    odd[:, 3] = 3 * motion[:, 0] - 7 * motion[:, 1] + 2
    odd[:, 4] = 5.0
    cleaned, report = clean_targets(odd, model, standardise=True)
    assert np.isnan(cleaned[:, 1:5]).all()
    assert report.n_rounding == 4
    np.testing.assert_array_equal(cleaned[:, [0, 5]], plain[:, [0, 5]])


def test_scans_leave_after_the_cosines_were_made_for_the_whole_run(rng):
    n_scans = 200
    keep = np.ones(n_scans, dtype=bool)
    keep[[0, 1, 50, 51, 52, 120]] = False
    confounds = rng.standard_normal((n_scans, 3))
    values = rng.standard_normal((n_scans, 20)).cumsum(axis=0)
    model = nuisance_model(n_scans, TR, "run", high_pass=1 / 128, confounds=confounds, keep=keep)
    cleaned, report = clean_targets(values[keep], model, standardise=False)
    assert _worst(values, cleaned, _reference(values[keep], n_scans, confounds, keep=keep)) < 1e-6
    assert report.n_scans == keep.sum()


def test_chunks_of_targets_change_nothing(rng, monkeypatch):
    values = rng.standard_normal((100, 23))
    model = nuisance_model(100, TR, "run", high_pass=1 / 128)
    together, _ = clean_targets(values, model, standardise=True)
    monkeypatch.setattr("langcortex.brain.cleaning.TARGETS", 5)
    apart, _ = clean_targets(values, model, standardise=True)
    np.testing.assert_allclose(apart, together, atol=1e-6)
    np.testing.assert_allclose(together.std(axis=0, ddof=1), 1, atol=1e-6)
