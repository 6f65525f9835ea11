"""Timing: lags, windows and haemodynamic responses against nilearn and against brute force, never across a run."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nilearn.glm.first_level import compute_regressor, glover_hrf

from langcortex.arrays import run_slices
from langcortex.brain.timing import (
    bin_weights,
    candidate_delays,
    delay_in_scans,
    hrf_weights,
    lag_rows,
    window_weights,
)
from langcortex.errors import AlignmentError


def test_a_delay_between_scans_is_an_error_that_says_what_to_do():
    with pytest.raises(AlignmentError) as error:
        delay_in_scans(3.0, 2.0, "run-15")
    assert str(error.value) == (
        "A delay of 3 s falls between scans of run 'run-15', which are 2 s apart. Use whole multiples of 2 s."
    )


@given(st.integers(0, 20), st.sampled_from([0.72, 0.8, 1.0, 1.49, 1.5, 2.0, 2.2, 3.0]))
def test_multiples_of_the_tr_are_whole_numbers_of_scans(k, tr):
    assert delay_in_scans(k * tr, tr) == k
    with pytest.raises(AlignmentError):
        delay_in_scans((k + 0.5) * tr, tr)


@pytest.mark.parametrize(
    ("tr", "expected"),
    [(2.0, (4.0, 6.0, 8.0, 10.0)), (1.0, (4, 5, 6, 7, 8, 9, 10)), (0.4, None), (3.0, (6.0, 9.0)), (12.0, ())],
)
def test_candidate_delays_are_the_multiples_of_the_tr_from_4_to_10_seconds(tr, expected):
    delays = candidate_delays(tr)
    if expected is not None:
        assert delays == expected
    assert all(4.0 <= d <= 10.0 and delay_in_scans(d, tr) > 0 for d in delays)
    if tr == 0.4:
        assert (delays[0], delays[-1], len(delays)) == (4.0, 10.0, 16)


@given(
    st.lists(st.integers(1, 6), min_size=1, max_size=5),
    st.lists(st.integers(0, 7), min_size=1, max_size=4),
    st.integers(1, 3),
)
def test_lags_move_rows_within_their_run_only(lengths, lags, p):
    run = np.repeat([f"run-{i}" for i in range(len(lengths))], lengths)
    x = np.arange(1.0, len(run) * p + 1).reshape(-1, p)  # no value twice, none 0
    out = lag_rows(x, tuple(lags), run)
    assert out.shape == (len(run), p * len(lags))
    for row in range(len(run)):
        for k, lag in enumerate(lags):
            source = row - lag
            inside = source >= 0 and run[source] == run[row]
            np.testing.assert_array_equal(out[row, k * p : (k + 1) * p], x[source] if inside else np.zeros(p))


def test_negative_lags_and_runs_whose_rows_are_not_contiguous_are_refused():
    with pytest.raises(ValueError, match="future"):
        lag_rows(np.ones((3, 1)), (-1,), np.array(["a", "a", "a"]))
    with pytest.raises(ValueError, match="must be contiguous"):
        run_slices(np.array(["a", "b", "a"]))
    assert run_slices(np.array([])) == []


@given(
    st.lists(st.tuples(st.floats(-6, 26), st.floats(0.05, 9)), min_size=1, max_size=6),
    st.sampled_from([0.8, 1.5, 2.0]),
    st.floats(-3, 3),
)
def test_window_weights_average_a_step_function_over_a_window(windows, tr, first):
    """The independent reference looks up the scan at 4,000 moments of each window."""
    onset, duration = np.array(windows).T
    scan_onset = first + tr * np.arange(12)
    y = np.random.default_rng(0).standard_normal(12)
    weights, covered = window_weights(onset, duration, scan_onset, tr)
    for i, (a, d) in enumerate(windows):
        moments = a + d * (np.arange(4000) + 0.5) / 4000
        scan = np.floor((moments - scan_onset[0]) / tr).astype(int)
        on = (scan >= 0) & (scan < 12)
        assert covered[i] == pytest.approx(on.mean(), abs=1e-3)
        if on.mean() > 0.01:
            assert (weights @ y)[i] == pytest.approx(y[scan[on]].mean(), abs=0.03)
            assert weights.toarray()[i].sum() == pytest.approx(1.0)


def test_a_window_of_no_duration_averages_the_scan_that_contains_it_and_one_outside_is_empty():
    weights, covered = window_weights(np.array([5.0, 99.0]), np.zeros(2), 2.0 * np.arange(5), 2.0)
    np.testing.assert_allclose(weights.toarray(), [[0, 0, 1, 0, 0], [0, 0, 0, 0, 0]])
    np.testing.assert_allclose(covered, [1.0, 0.0])


def test_a_unit_belongs_to_the_scan_that_contains_its_midpoint():
    scan_onset = -1.0 + 2.0 * np.arange(4)  # scans −1–1, 1–3, 3–5, 5–7
    onset = np.array([-4.0, -0.5, 0.8, 1.0, 2.9, 6.9])
    duration = np.array([1.0, 1.0, 0.4, 0.5, 0.4, 0.4])  # midpoints −3.5, 0, 1.0, 1.25, 3.1, 7.1
    expected = {
        "sum": [[0, 1, 0, 0, 0, 0], [0, 0, 1, 1, 0, 0], [0, 0, 0, 0, 1, 0], [0, 0, 0, 0, 0, 0]],
        "mean": [[0, 1, 0, 0, 0, 0], [0, 0, 0.5, 0.5, 0, 0], [0, 0, 0, 0, 1, 0], [0, 0, 0, 0, 0, 0]],
        "last": [[0, 1, 0, 0, 0, 0], [0, 0, 0, 1, 0, 0], [0, 0, 0, 0, 1, 0], [0, 0, 0, 0, 0, 0]],
        # .4 and .5 s share the second scan
        "duration": [[0, 1, 0, 0, 0, 0], [0, 0, 4 / 9, 5 / 9, 0, 0], [0, 0, 0, 0, 1, 0], [0, 0, 0, 0, 0, 0]],
    }
    for combine, matrix in expected.items():
        weights, filled = bin_weights(onset, duration, scan_onset, 2.0, combine)
        np.testing.assert_allclose(weights.toarray(), matrix)
        assert filled.tolist() == [True, True, True, False]
    with pytest.raises(ValueError, match="median"):
        bin_weights(onset, duration, scan_onset, 2.0, "median")


@pytest.mark.parametrize("kernel", ["glover", "spm"])
@pytest.mark.parametrize("shape", ["boxcar", "impulse"])
def test_hrf_weights_equal_the_regressor_of_nilearn(rng, kernel, shape):
    """To 1.5 % of the peak: nilearn rounds events to its grid, and its kernels begin one grid step late."""
    onset = np.sort(rng.integers(0, 500, 25)) / 10
    duration = rng.integers(2, 30, 25) / 10 if shape == "boxcar" else np.zeros(25)
    amplitude = rng.standard_normal(25)
    frame_times = 2.0 * np.arange(60)
    oversampling = 200
    expected, _ = compute_regressor(
        np.vstack([onset, duration, amplitude]), kernel, frame_times, oversampling=oversampling
    )
    if shape == "impulse":  # nilearn gives an event without length one sample of height 1
        expected = expected / (2.0 / oversampling)
    convolved = hrf_weights(onset, duration, frame_times, kernel, shape) @ amplitude
    np.testing.assert_allclose(convolved, expected[:, 0], atol=0.015 * np.abs(expected).max())


@pytest.mark.parametrize("kernel", ["glover", "spm"])
def test_words_of_onsets_only_are_impulses(rng, kernel):
    onset, scans = np.sort(rng.uniform(0, 50, 20)), 2.0 * np.arange(40)
    boxcar = hrf_weights(onset, np.zeros(20), scans, kernel, "boxcar").toarray()
    np.testing.assert_array_equal(
        boxcar, hrf_weights(onset, np.zeros(20), scans, kernel, "impulse").toarray()
    )
    short = hrf_weights(onset, np.full(20, 1e-3), scans, kernel, "boxcar").toarray() / 1e-3
    np.testing.assert_allclose(boxcar, short, atol=4e-3 * short.max())  # the limit of ever shorter boxcars


def test_an_impulse_among_boxcars_has_the_area_of_a_boxcar_of_median_length():
    onset, duration = np.array([0.0, 0.0, 0.0]), np.array([0.0, 0.2, 0.4])
    scans = np.arange(0.0, 60.0, 0.05)
    area = hrf_weights(onset, duration, scans, "glover").toarray().sum(axis=0) * 0.05
    np.testing.assert_allclose(area, [0.3, 0.2, 0.4], rtol=0.01)


def test_onsets_only_share_a_scan_equally_and_sample_it_as_windows():
    onset, zero, scans = np.array([0.5, 1.0, 2.5]), np.zeros(3), 2.0 * np.arange(3)
    weights, _ = bin_weights(onset, zero, scans, 2.0, "duration")
    np.testing.assert_array_equal(
        weights.toarray(), bin_weights(onset, zero, scans, 2.0, "mean")[0].toarray()
    )
    windows, covered = window_weights(onset, zero, scans, 2.0)
    np.testing.assert_allclose(windows.toarray(), [[1, 0, 0], [1, 0, 0], [0, 1, 0]])
    np.testing.assert_allclose(covered, 1.0)


def test_a_long_boxcar_reaches_the_integral_of_the_kernel():
    weights = hrf_weights(np.array([0.0]), np.array([100.0]), np.array([50.0, 99.0]), "glover")
    np.testing.assert_allclose(weights.toarray(), 1.0, atol=1e-3)


def test_a_response_follows_its_word():
    weights = hrf_weights(np.array([10.0]), np.array([1.0]), np.arange(0.0, 60.0), "glover").toarray()[:, 0]
    assert (weights[:11] == 0).all()
    assert (weights[43:] == 0).all()
    assert 14 <= np.argmax(weights) <= 17


def test_a_kernel_may_be_a_function_with_the_signature_of_nilearns():
    onset, duration, times = np.array([3.0]), np.array([2.0]), np.arange(0.0, 40.0, 2.0)
    named = hrf_weights(onset, duration, times, "glover").toarray()
    given_as_function = hrf_weights(onset, duration, times, glover_hrf).toarray()
    np.testing.assert_allclose(given_as_function, named)


def test_a_kernel_of_another_length_is_not_stretched():
    """Nilearn takes a function's samples to be tr / oversampling apart, however many there are."""

    def bump(tr: float, oversampling: int) -> np.ndarray:
        t = np.arange(0.0, 16.0, tr / oversampling)
        return np.exp(-0.5 * ((t - 5.0) / 0.5) ** 2)

    times = np.arange(0.0, 30.0, 0.5)
    weights = hrf_weights(np.array([0.0]), np.array([0.0]), times, bump, "impulse").toarray()[:, 0]
    assert times[np.argmax(weights)] == pytest.approx(5.0)


def test_unknown_kernels_and_shapes_are_refused():
    with pytest.raises(AlignmentError, match="No haemodynamic response is called 'gamma'"):
        hrf_weights(np.zeros(1), np.ones(1), np.arange(9.0), "gamma")
    with pytest.raises(ValueError, match="triangle"):
        hrf_weights(np.zeros(1), np.ones(1), np.arange(9.0), "glover", "triangle")
