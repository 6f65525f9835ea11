"""Recordings without a story: as slow, as large and as alike as the true ones, and nothing of what happened when."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest

from langcortex.audit.null_recordings import (
    KINDS,
    SURROGATES,
    RestScans,
    check_kind,
    randomise_phases,
    read_rest,
    rest_recording,
    simulate_autoregressive,
    yule_walker,
)
from langcortex.brain.recording import Cleaning, Recording
from langcortex.brain.space import Space, volume_space
from langcortex.errors import FitError, RecordingError, SettingsError

Noise = Callable[..., np.ndarray]


def recorded(values: np.ndarray, space: Space | None = None, tr: float = 2.0) -> Recording:
    space = space or Space("columns", np.array([f"c{i}" for i in range(values.shape[1])]))
    return Recording(values.astype(np.float32), np.arange(len(values)) * tr - 3.0, tr, "run-1", "01", space)


@pytest.fixture
def slow(rng: np.random.Generator, autocorrelated: Noise) -> Recording:
    """Give targets that are slow, alike, and of different means and sizes; two of them say nothing."""
    mixed = autocorrelated(rng, 301, 6, 0.8) @ rng.standard_normal((6, 10))
    values = 100.0 + mixed * np.linspace(1, 5, 10)
    values[:, 3], values[:, 7] = np.nan, 42.0
    return recorded(values)


SAYING = [0, 1, 2, 4, 5, 6, 8, 9]


def autocorrelation(x: np.ndarray, lag: int) -> np.ndarray:
    z = x - x.mean(axis=0)
    return np.asarray((z[lag:] * z[:-lag]).sum(axis=0) / np.square(z).sum(axis=0))


@pytest.mark.parametrize("kind", SURROGATES)
def test_clock_space_mean_and_size_stay_and_what_happened_does_not(slow: Recording, kind: str) -> None:
    made = SURROGATES[kind](slow, np.random.default_rng(1))
    assert (made.run, made.subject, made.tr, made.space) == (slow.run, slow.subject, slow.tr, slow.space)
    np.testing.assert_array_equal(made.onset, slow.onset)
    assert made.values.dtype == np.float32
    x, y = slow.values[:, SAYING].astype(float), made.values[:, SAYING].astype(float)
    np.testing.assert_allclose(y.mean(axis=0), x.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(y.std(axis=0), x.std(axis=0), rtol=1e-3)
    r = [np.corrcoef(a, b)[0, 1] for a, b in zip(x.T, y.T, strict=True)]
    assert np.abs(r).mean() < 0.35


@pytest.mark.parametrize("kind", SURROGATES)
def test_targets_without_data_and_constant_ones_stay_as_they_are(slow: Recording, kind: str) -> None:
    made = SURROGATES[kind](slow, np.random.default_rng(1)).values
    assert np.isnan(made[:, 3]).all()
    assert (made[:, 7] == 42.0).all()
    assert np.isfinite(np.delete(made, 3, axis=1)).all()


@pytest.mark.parametrize("kind", SURROGATES)
def test_one_seed_gives_one_recording(slow: Recording, kind: str) -> None:
    first, again, other = (SURROGATES[kind](slow, np.random.default_rng(s)).values for s in (4, 4, 5))
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first[:, 0], other[:, 0])


@pytest.mark.parametrize("kind", SURROGATES)
def test_the_true_recording_is_left_alone(slow: Recording, kind: str) -> None:
    before = slow.values.copy()
    SURROGATES[kind](slow, np.random.default_rng(0))
    np.testing.assert_array_equal(slow.values, before)


@pytest.mark.parametrize("kind", SURROGATES)
def test_autocorrelation_and_correlations_between_targets_are_kept(slow: Recording, kind: str) -> None:
    """Exactly, but for seams, where scans are moved or turned; on average where noise is drawn."""
    x = slow.values[:, SAYING].astype(float)
    made = [SURROGATES[kind](slow, np.random.default_rng(s)).values[:, SAYING] for s in range(20)]
    for lag in (1, 3):
        mean = np.mean([autocorrelation(y, lag) for y in made], axis=0)
        np.testing.assert_allclose(mean, autocorrelation(x, lag), atol=0.06)
    off = ~np.eye(len(SAYING), dtype=bool)
    mean = np.mean([np.corrcoef(y.T) for y in made], axis=0)
    true = np.corrcoef(x.T)[off]
    if kind == "ar":  # innovations depend on one another as they did; what is slow and shared less so
        assert np.corrcoef(mean[off], true)[0, 1] > 0.95
    else:
        np.testing.assert_allclose(mean[off], true, atol=1e-4)


def test_phases_keep_every_targets_spectrum(slow: Recording) -> None:
    made = randomise_phases(slow, np.random.default_rng(0)).values[:, SAYING]
    one, other = (np.abs(np.fft.rfft(v.astype(float), axis=0))[1:] for v in (slow.values[:, SAYING], made))
    np.testing.assert_allclose(one, other, rtol=2e-3, atol=0.5)


def test_yule_walker_finds_what_made_the_noise(rng: np.random.Generator) -> None:
    """x(t) = 1.2 x(t − 1) − .5 x(t − 2) + e(t), and white noise beside it; scipy's solver agrees to rounding."""
    from scipy.linalg import solve_toeplitz

    x = rng.standard_normal((4000, 2))
    for t in range(2, 4000):
        x[t, 0] += 1.2 * x[t - 1, 0] - 0.5 * x[t - 2, 0]
    x -= x.mean(axis=0)
    a = yule_walker(x, 3)
    np.testing.assert_allclose(a, [[1.2, 0.0], [-0.5, 0.0], [0.0, 0.0]], atol=0.06)
    for column in range(2):
        c = np.correlate(x[:, column], x[:, column], "full")[3999:4003]
        np.testing.assert_allclose(a[:, column], solve_toeplitz(c[:3], c[1:]), atol=1e-10)


def test_noise_is_as_slow_as_its_target(rng: np.random.Generator, autocorrelated: Noise) -> None:
    """One order for all would make the fast slow or the slow fast."""
    values = np.concatenate([autocorrelated(rng, 800, 5, rho) for rho in (0.0, 0.9)], axis=1)
    made = simulate_autoregressive(recorded(values), rng).values
    found = autocorrelation(made.astype(float), 1)
    assert np.abs(found[:5]).max() < 0.15
    assert found[5:].min() > 0.75


@pytest.mark.parametrize(("kind", "error"), [("ar", RecordingError), ("phase", FitError)])
def test_a_run_of_three_scans_is_too_short(kind: str, error: type[Exception]) -> None:
    with pytest.raises(error, match="run-1"):
        SURROGATES[kind](recorded(np.arange(6.0).reshape(3, 2)), np.random.default_rng(0))


# real rest


def test_a_stretch_of_rest_takes_the_place_of_the_run(slow: Recording, rng: np.random.Generator) -> None:
    rest = RestScans("rest.npy", rng.standard_normal((700, 10)).astype(np.float32), None)
    made = rest_recording(slow, (rest,), np.random.default_rng(3))
    first = int(np.flatnonzero(rest.values[:, 0] == made.values[0, 0])[0])
    np.testing.assert_array_equal(made.values[:, SAYING], rest.values[first : first + 301][:, SAYING])
    assert np.isnan(made.values[:, 3]).all()
    assert (made.values[:, 7] == 42.0).all()
    np.testing.assert_array_equal(made.onset, slow.onset)
    firsts = {float(rest_recording(slow, (rest,), np.random.default_rng(s)).values[0, 0]) for s in range(20)}
    assert len(firsts) > 15


def test_rest_is_cleaned_as_recordings_are(slow: Recording, rng: np.random.Generator) -> None:
    drifting = rng.standard_normal((301, 10)) + np.linspace(0, 50, 301)[:, None]
    rest = RestScans("rest.npy", drifting.astype(np.float32), None)
    made = rest_recording(slow, (rest,), rng, Cleaning()).values[:, SAYING]
    np.testing.assert_allclose(made.std(axis=0, ddof=1), 1.0, rtol=1e-4)
    assert abs(np.corrcoef(made[:, 0], np.arange(301))[0, 1]) < 0.05


def test_rest_that_is_too_short_or_scanned_otherwise_is_refused(slow: Recording) -> None:
    short = RestScans("short.npy", np.zeros((300, 10), np.float32), None)
    with pytest.raises(RecordingError, match="has 301 scans but the longest rest 300"):
        rest_recording(slow, (short,), np.random.default_rng(0))
    other = RestScans("rest.nii.gz", np.zeros((400, 10), np.float32), 1.5)
    with pytest.raises(RecordingError, match=r"a TR of 1.5 s and run 'run-1' one of 2 s"):
        rest_recording(slow, (other,), np.random.default_rng(0))


def test_tables_of_rest_are_read_alone_or_as_a_folder(tmp_path: Path, rng: np.random.Generator) -> None:
    space = Space("columns", np.array(["a", "b", "c"]))
    values = rng.standard_normal((50, 3)).astype(np.float32)
    for name in ("rest-1.npy", "rest-2.npy"):
        np.save(tmp_path / name, values)
    (tmp_path / "rest-1_desc-confounds_timeseries.tsv").write_text("x\n1\n2\n")
    (one,) = read_rest(tmp_path / "rest-1.npy", space)
    np.testing.assert_array_equal(one.values, values)
    assert one.tr is None
    assert [rest.name for rest in read_rest(tmp_path, space)] == ["rest-1.npy", "rest-2.npy"]


def test_of_a_table_with_more_columns_as_many_as_the_study_has_are_taken(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    values = rng.standard_normal((50, 9)).astype(np.float32)
    values[:, 0] = 0.0  # no data
    np.save(tmp_path / "rest.npy", values)
    (rest,) = read_rest(tmp_path / "rest.npy", Space("columns", np.array(["a", "b", "c"])))
    np.testing.assert_array_equal(rest.values, values[:, [1, 5, 8]])
    with pytest.raises(RecordingError, match="has 9 targets and the study's recordings 10"):
        read_rest(tmp_path / "rest.npy", Space("columns", np.array([f"c{i}" for i in range(10)])))
    with pytest.raises(RecordingError, match="has 9 targets and the study's recordings 4"):
        read_rest(tmp_path / "rest.npy", Space("surface", np.arange(4).astype(str), hemispheres=(2, 2)))


def test_both_hemispheres_of_a_surface_are_found_beside_each_other(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    halves = [rng.standard_normal((40, n)).astype(np.float32) for n in (6, 5)]
    for half, values in zip("LR", halves, strict=True):
        arrays = [nibabel.gifti.GiftiDataArray(v, intent="NIFTI_INTENT_TIME_SERIES") for v in values]
        nibabel.save(
            nibabel.gifti.GiftiImage(darrays=arrays),
            tmp_path / f"sub-1_task-rest_hemi-{half}_space-fsaverage5_bold.func.gii",
        )
    for half, values in zip(("lh", "rh"), halves, strict=True):
        image = nibabel.freesurfer.MGHImage(values.T[:, None, None, :].copy(), np.eye(4))
        nibabel.save(image, tmp_path / f"rest.fsa5.{half}.mgz")
    space = Space("surface", np.arange(11).astype(str), hemispheres=(6, 5))
    for path in (
        *tmp_path.glob("*.gii"), *tmp_path.glob("*.mgz"),
    ):  # fmt: skip
        (rest,) = read_rest(path, space)
        np.testing.assert_array_equal(rest.values, np.hstack(halves))
    assert len(read_rest(tmp_path, space)) == 2
    (tmp_path / "rest.fsa5.rh.mgz").unlink()
    with pytest.raises(RecordingError, match="is one hemisphere"):
        read_rest(tmp_path / "rest.fsa5.lh.mgz", space)


def test_an_image_of_rest_lies_on_the_studys_grid(tmp_path: Path, rng: np.random.Generator) -> None:
    inside = np.zeros((4, 4, 3), dtype=np.uint8)
    inside[1:3, 1:3, 1] = 1
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    nibabel.save(nibabel.Nifti1Image(inside, affine), tmp_path / "mask.nii.gz")
    image = nibabel.Nifti1Image(rng.standard_normal((4, 4, 3, 30)).astype(np.float32), affine)
    image.header.set_zooms((2.0, 2.0, 2.0, 2.0))
    image.header.set_xyzt_units("mm", "sec")
    nibabel.save(image, tmp_path / "rest.nii.gz")
    space = volume_space(tmp_path / "mask.nii.gz", [tmp_path / "rest.nii.gz"])
    (rest,) = read_rest(tmp_path / "rest.nii.gz", space)
    assert (rest.values.shape, rest.tr) == ((30, 4), 2.0)
    np.testing.assert_allclose(rest.values, image.get_fdata()[inside > 0].T, rtol=1e-6)
    moved = nibabel.Nifti1Image(np.zeros((5, 4, 3, 30), np.float32), affine)
    nibabel.save(moved, tmp_path / "other.nii.gz")
    with pytest.raises(RecordingError, match="another grid"):
        read_rest(tmp_path / "other.nii.gz", space)


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("gone.npy", None, "does not exist"),
        ("rest.npy", b"", "is empty"),
        ("rest.npy", b"\x93NUMPY\x01\x00", "rest.npy"),
        ("rest.nii.gz", b"../../.git/annex/objects/aa/bb", "datalad get"),
    ],
)
def test_rest_that_cannot_be_read_says_why(
    tmp_path: Path, name: str, content: bytes | None, told: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(RecordingError, match=re.escape(told)):
        read_rest(tmp_path / name, Space("columns", np.array(["a"])))


def test_half_a_surface_file_and_an_empty_folder_say_why(tmp_path: Path, rng: np.random.Generator) -> None:
    space = Space("surface", np.arange(8).astype(str), hemispheres=(4, 4))
    with pytest.raises(RecordingError, match="No recording of rest was found"):
        read_rest(tmp_path, space)
    values = rng.standard_normal((4, 1, 1, 400)).astype(np.float32)
    for half in ("lh", "rh"):
        nibabel.save(nibabel.freesurfer.MGHImage(values, np.eye(4)), tmp_path / f"{half}.rest.mgz")
    whole = (tmp_path / "rh.rest.mgz").read_bytes()
    (tmp_path / "rh.rest.mgz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(RecordingError, match=r"rh\.rest\.mgz"):
        read_rest(tmp_path / "lh.rest.mgz", space)


def test_kinds_are_held_against_those_there_are(tmp_path: Path) -> None:
    for kind in KINDS:
        check_kind(kind, tmp_path if kind == "rest" else None)
    with pytest.raises(SettingsError, match="of kind phase, ar, shift, rest; not 'white'"):
        check_kind("white", None)
    for kind, rest in (("rest", None), ("phase", tmp_path)):
        with pytest.raises(SettingsError, match="belong together"):
            check_kind(kind, rest)
