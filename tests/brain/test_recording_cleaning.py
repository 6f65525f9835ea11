"""Recordings are cleaned by one regression per run, which holds whatever the confounds look like, and say what it removed."""

import numpy as np
import pandas as pd
import pytest

from langcortex.brain.cleaning import CleaningReport, cosine_drifts, describe_cleaning
from langcortex.brain.recording import Cleaning, Recording, average_over_parcels, read_recording
from langcortex.brain.regions import average_parcels
from langcortex.brain.space import Space
from langcortex.errors import RecordingError

TR = 2.0


def _read(tmp_path, values, table=None, cleaning=None, run="1"):
    np.save(tmp_path / f"{run}.npy", values)
    confounds = None
    if table is not None:
        confounds = tmp_path / f"{run}.tsv"
        table.to_csv(confounds, sep="\t", index=False, na_rep="n/a")
    return read_recording(tmp_path / f"{run}.npy", run, "01", tr=TR, cleaning=cleaning, confounds=confounds)


def _reference(values, confounds):
    n, values = len(values), values.astype(np.float64)
    design = np.column_stack([np.ones(n), np.arange(n), cosine_drifts(n, TR, 1 / 128), confounds])
    design = design / np.linalg.norm(design, axis=0)
    residual = values - design @ np.linalg.lstsq(design, values, rcond=None)[0]
    return residual / residual.std(axis=0, ddof=1)


def _confounds(kind, rng, n):
    rising = np.linspace(0, 1, n)
    return {
        "sinks": -rising + 0.02 * rng.standard_normal(n),
        "rises": rising + 0.02 * rng.standard_normal(n),
        "a cosine": cosine_drifts(n, TR, 1 / 128)[:, 2] + 0.01 * rng.standard_normal(n),
        "steps": (rising > 0.5) + 0.05 * rng.standard_normal(n),
        "wanders": np.cumsum(rng.standard_normal(n)),
        "is huge": 1e9 * rng.standard_normal(n),
        "is tiny": 1e-9 * rng.standard_normal(n),
    }[kind]


@pytest.mark.parametrize("kind", ["sinks", "rises", "a cosine", "steps", "wanders", "is huge", "is tiny"])
def test_slow_drifts_leave_whatever_the_confounds_look_like(tmp_path, rng, kind):
    n = 200
    slow = np.sin(2 * np.pi * np.arange(n) * TR / 150)
    values = (100 + 3 * slow[:, None] + rng.standard_normal((n, 4))).astype(np.float32)
    confound = _confounds(kind, rng, n)
    cleaned = _read(tmp_path, values, pd.DataFrame({"trans_z": confound}))
    expected = _reference(values, confound)
    np.testing.assert_allclose(cleaned.values, expected, atol=1e-6)
    assert max(abs(np.corrcoef(slow, y)[0, 1]) for y in cleaned.values.T) < 0.25
    assert (cleaned.cleaning.n_drifts, cleaned.cleaning.confounds) == (7, ("trans_z",))


def test_random_walks_never_switch_the_filter_off(tmp_path, rng):
    n = 300
    for _ in range(20):
        walks = np.cumsum(rng.standard_normal((n, 6)), axis=0)
        values = np.cumsum(rng.standard_normal((n, 3)), axis=0).astype(np.float32)
        cleaned = _read(tmp_path, values, pd.DataFrame(walks))
        np.testing.assert_allclose(cleaned.values, _reference(values, walks), atol=2e-6)
        assert cleaned.cleaning.n_drifts == 10


@pytest.mark.parametrize("n_confounds", [144, 149, 160, 300])
def test_confounds_that_leave_nothing_name_the_run_and_the_numbers(tmp_path, rng, n_confounds):
    table = pd.DataFrame(rng.standard_normal((150, n_confounds)))
    with pytest.raises(
        RecordingError, match=rf"Run 'x' of subject '01'.*leave nothing of 150 scans \({n_confounds} columns"
    ):
        _read(tmp_path, rng.standard_normal((150, 3)), table, run="x")


def test_targets_that_leave_rounding_are_undefined_and_remarked(tmp_path, rng):
    n = 150
    table = pd.DataFrame(rng.standard_normal((n, 2)), columns=["a", "b"])
    values = rng.standard_normal((n, 8))
    values[:, 1] = np.arange(n)
    values[:, 2] = 1e5 - 0.37 * np.arange(n)
    values[:, 3] = 7.1
    values[:, 4] = np.nan
    values[:, 5] = 1000 + 3 * table.a - 2 * table.b
    values[:, 6] = 50 + cosine_drifts(n, TR, 1 / 128)[:, 1]
    recording = _read(tmp_path, values.astype(np.float32), table)
    np.testing.assert_array_equal(np.isnan(recording.values).all(axis=0), [0, 1, 1, 1, 1, 1, 1, 0])
    report = recording.cleaning
    assert (report.n_rounding, report.n_undefined) == (5, 6)
    (remark,) = describe_cleaning({"01": {"1": report}})
    assert "Run '1' of subject '01': targets that are constant, or that a straight line" in remark
    assert "are undefined (5)" in remark


def test_nothing_but_lines_is_an_error(tmp_path):
    with pytest.raises(
        RecordingError, match="all 2 targets are constant, empty, or explained but for rounding"
    ):
        _read(tmp_path, np.column_stack([np.arange(80.0), 5 - np.arange(80.0)]))


def test_patterns_are_resolved_run_by_run(tmp_path, rng):
    columns = {"1": ["trans_x", "a_comp_cor_00", "a_comp_cor_01"], "2": ["a_comp_cor_00", "trans_x", "csf"]}
    cleaning, used = Cleaning(confounds=("trans_x", "a_comp_cor_*")), {}
    for run, names in columns.items():
        table = pd.DataFrame(rng.standard_normal((90, 3)), columns=names)
        values = rng.standard_normal((90, 2)).astype(np.float32)
        recording = _read(tmp_path, values, table, cleaning, run)
        used[run] = recording.cleaning.confounds
        np.testing.assert_allclose(
            recording.values, _reference(values, table[list(used[run])].to_numpy()), atol=1e-6
        )
    assert used == {"1": ("trans_x", "a_comp_cor_00", "a_comp_cor_01"), "2": ("trans_x", "a_comp_cor_00")}
    table = pd.DataFrame(rng.standard_normal((90, 1)), columns=["trans_x"])
    with pytest.raises(
        RecordingError, match=r"Run '3' of subject '01': .*no column that matches 'a_comp_cor_\*'"
    ):
        _read(tmp_path, values, table, cleaning, "3")


def test_dropped_confounds_and_few_degrees_of_freedom_are_remarked(tmp_path, rng):
    table = pd.DataFrame(rng.standard_normal((60, 40)), columns=[f"c{i}" for i in range(40)])
    table["copy"] = 2 * table.c1 - table.c3
    table["flat"] = 1.0
    recording = _read(tmp_path, rng.standard_normal((60, 2)), table)
    assert recording.cleaning.dropped == ("copy", "flat")
    assert recording.cleaning.degrees_of_freedom == 60 - 1 - 2 - 40
    dropped, little = describe_cleaning({"01": {"1": recording.cleaning, "2": CleaningReport(200, 4, 6)}})
    assert "explained by drifts and other confounds, were dropped (2: copy, flat)" in dropped
    assert "40 confounds and 2 drift regressors leave 17 degrees of freedom of 60 scans" in little


@pytest.mark.parametrize(
    ("report", "leaves_little"),
    [
        (CleaningReport(300, 5, 24), False),
        (CleaningReport(300, 5, 265), True),
        (CleaningReport(30, 5, 6), True),
        (CleaningReport(10), False),
    ],
)
def test_little_is_a_tenth_of_the_scans_or_twenty_degrees_of_freedom(report, leaves_little):
    assert report.leaves_little is leaves_little


def test_without_any_step_values_are_as_stored(tmp_path, rng):
    values = (50 + rng.standard_normal((40, 3))).astype(np.float32)
    values[:, 1] = np.arange(40)
    recording = _read(tmp_path, values, cleaning=Cleaning(False, None, False))
    np.testing.assert_array_equal(recording.values, values)
    assert (recording.cleaning.n_drifts, recording.cleaning.degrees_of_freedom) == (0, 39)


def test_a_parcel_whose_mean_is_rounding_is_undefined(rng):
    y = rng.standard_normal((60, 3)).astype(np.float32)
    values = np.column_stack([y[:, 0], -y[:, 0], y[:, 1], y[:, 2]]).astype(np.float32)
    values[:, 1] += np.float32(1e-8) * y[:, 2]
    names = np.array(list("abcd"))
    regions = {"opposite": np.array([1, 1, 0, 0], bool), "real": np.array([0, 0, 1, 1], bool)}
    space = Space("columns", names, regions=regions)
    recording = Recording(values, np.arange(60) * TR, TR, "1", "01", space, cleaning=CleaningReport(60, 3, 2))
    for standardise in (True, False):
        means = average_over_parcels(recording, average_parcels(space), standardise)
        assert np.isnan(means.values[:, 0]).all()
        assert np.isfinite(means.values[:, 1]).all()
        assert (means.cleaning.n_rounding, means.cleaning.n_undefined, means.cleaning.n_confounds) == (
            1,
            1,
            2,
        )
