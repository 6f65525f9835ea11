"""Planted truth: signal where it was told, when it was told, as much as was told, and nowhere else."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest

from langcortex.brain.recording import Cleaning, read_recording
from langcortex.brain.space import volume_space
from langcortex.features import Features
from langcortex.simulation.demo import demo_story
from langcortex.simulation.planted import (
    AUDITORY_REGIONS,
    LANGUAGE_REGIONS,
    Plant,
    mni_space,
    plant,
    write_bold,
    write_mask,
)
from langcortex.stimulus.story import Story

LANGUAGE, AUDITORY = np.arange(60) < 20, (np.arange(60) >= 20) & (np.arange(60) < 30)
SILENT = ~(LANGUAGE | AUDITORY)
RAW = Cleaning(detrend=False, high_pass=None, standardise=False)


@pytest.fixture(scope="module")
def heard() -> Story:
    return demo_story()


@pytest.fixture(scope="module")
def states(heard: Story) -> Features:
    """One column, so that every language target follows it up to its sign."""
    s = heard.sentences
    values = np.random.default_rng(1).standard_normal((len(s), 1))
    return Features("states", s.ids, s.onset, s.duration, s.run, values)


def drive(story: Story, run: str, value: np.ndarray, delay: float, n: int, tr: float) -> np.ndarray:
    """Say what a scan should hear, on a grid of hundredths of a second."""
    s = story.sentences
    fine = np.zeros(round(n * tr * 100))
    for i in np.flatnonzero(s.run == run):
        first, last = (round((t + delay) * 100) for t in (s.onset[i], s.onset[i] + s.duration[i]))
        fine[first:last] = value[i]
    return fine.reshape(n, -1).mean(axis=1)


def correlate(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    x, y = x - x.mean(), y - y.mean(axis=0)
    return (x @ y) / np.sqrt((x @ x) * np.square(y).sum(axis=0))


def make(story: Story, states: Features, what: Plant, seed: int = 0) -> dict[str, np.ndarray]:
    return plant(story, states, LANGUAGE, AUDITORY, what, np.random.default_rng(seed))


@pytest.mark.parametrize(("delay", "tr"), [(6.0, 2.0), (4.0, 2.0), (7.5, 1.5)])
def test_signal_stands_at_the_delay_told_and_only_where_told(
    heard: Story, states: Features, delay: float, tr: float
) -> None:
    """The cross-correlation with what was heard is highest at the planted delay."""
    made = make(heard, states, Plant(signal=0.8, delay=delay, tr=tr, drift=0.0))
    length = heard.sentences.duration - heard.sentences.duration.mean()
    state = states.values[:, 0] - states.values[:, 0].mean()
    candidates = [0.0, 1.0, delay - tr, delay, delay + tr, delay + 3 * tr]
    for value, followers in ((state, LANGUAGE), (length, AUDITORY)):
        r = np.zeros((len(candidates), 60))
        for run, y in made.items():
            for i, d in enumerate(candidates):
                r[i] += correlate(drive(heard, run, value, d, len(y), tr), y) / len(made)
        assert (np.abs(r[:, followers]).argmax(axis=0) == 3).all()
        assert np.abs(r[3, followers]).mean() == pytest.approx(np.sqrt(0.8), abs=0.03)
        assert np.abs(r[:, SILENT]).mean() < 0.06


@pytest.mark.parametrize("signal", [0.0, 0.3, 0.7])
def test_the_share_of_variance_is_the_signals(heard: Story, states: Features, signal: float) -> None:
    made = make(heard, states, Plant(signal=signal, drift=0.0, autocorrelation=0.3))
    state = states.values[:, 0] - states.values[:, 0].mean()
    shares = [
        np.square(correlate(drive(heard, run, state, 6.0, len(y), 2.0), y[:, LANGUAGE]))
        for run, y in made.items()
    ]
    assert np.mean(shares) == pytest.approx(signal, abs=0.04)


def test_every_target_varies_about_as_much(heard: Story, states: Features) -> None:
    y = np.concatenate([one - one.mean(axis=0) for one in make(heard, states, Plant(drift=0.0)).values()])
    np.testing.assert_allclose(y.std(axis=0), 1.0, atol=0.25)


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.8])
def test_the_noise_is_autocorrelated_as_told(heard: Story, states: Features, rho: float) -> None:
    made = make(heard, states, Plant(signal=0.0, drift=0.0, autocorrelation=rho))
    y = [one - one.mean(axis=0) for one in made.values()]
    lag = sum((one[1:] * one[:-1]).sum() for one in y) / sum((one**2).sum() for one in y)
    assert lag == pytest.approx(rho, abs=0.05)


def test_a_drift_is_slow_and_as_large_as_told(heard: Story, states: Features) -> None:
    still = make(heard, states, Plant(signal=0.0, drift=0.0), seed=3)["run-1"]
    drifting = make(heard, states, Plant(signal=0.0, drift=2.0), seed=3)["run-1"] - still
    assert np.abs(drifting).max() == pytest.approx(2 * np.sqrt(2), rel=0.01)
    assert np.abs(np.diff(drifting, axis=0)).max() < 0.5


def test_a_language_target_mixes_as_many_directions_as_told(heard: Story) -> None:
    s = heard.sentences
    wide = np.random.default_rng(2).standard_normal((len(s), 40)) * np.logspace(0, 2, 40)
    table = Features("wide", s.ids, s.onset, s.duration, s.run, wide)
    one = make(heard, table, Plant(signal=1.0, n_components=1))["run-2"][:, LANGUAGE]
    three = make(heard, table, Plant(signal=1.0, n_components=3))["run-2"][:, LANGUAGE]
    assert np.linalg.matrix_rank(one, tol=1e-3) == 1
    assert np.linalg.matrix_rank(three, tol=1e-3) == 3


def test_scans_are_counted_by_the_tail_or_given(heard: Story, states: Features) -> None:
    made = make(heard, states, Plant(tail=14.0))
    s = heard.sentences
    for run, y in made.items():
        end = (s.onset + s.duration)[s.run == run].max()
        assert y.dtype == np.float32
        assert (len(y) - 1) * 2.0 < end + 14.0 <= len(y) * 2.0
    counts = {run: 100 + i for i, run in enumerate(heard.runs)}
    given = plant(heard, states, LANGUAGE, AUDITORY, Plant(), np.random.default_rng(0), counts)
    assert {run: len(y) for run, y in given.items()} == counts


def test_the_same_seed_plants_the_same_brain(heard: Story, states: Features) -> None:
    one, two, other = (make(heard, states, Plant(), seed)["run-3"] for seed in (5, 5, 6))
    np.testing.assert_array_equal(one, two)
    assert not np.array_equal(one, other)


def test_the_brain_is_grey_matter_with_spheres_at_their_places() -> None:
    space = mni_space(resolution=8, radius=12.0)
    assert space.mask is not None
    assert space.affine is not None
    assert space.n_targets == space.mask.sum() > 1000
    where = np.argwhere(space.mask) @ space.affine[:3, :3].T + space.affine[:3, 3]
    assert set(space.regions) == {*LANGUAGE_REGIONS, *AUDITORY_REGIONS}
    for name, inside in space.regions.items():
        centre = {**LANGUAGE_REGIONS, **AUDITORY_REGIONS}[name]
        assert inside.sum() >= 3
        assert np.linalg.norm(where[inside] - centre, axis=1).max() <= 12.0
    assert (where[space.regions["IFG"]][:, 0] < 0).all()
    assert (where[space.regions["AuditoryR"]][:, 0] > 0).all()


def test_images_read_back_as_they_were_written(tmp_path: Path, rng: np.random.Generator) -> None:
    space = mni_space(resolution=12)
    values = rng.standard_normal((30, space.n_targets)).astype(np.float32)
    path, mask = tmp_path / "data" / "bold.nii.gz", tmp_path / "data" / "mask.nii.gz"
    write_bold(values, space, path, tr=1.5)
    write_mask(np.ones(space.n_targets, dtype=bool), space, mask)
    found = volume_space(mask, [path])
    assert found.same_as(space)
    recording = read_recording(path, "run-1", "01", space=found, cleaning=RAW)
    assert recording.tr == 1.5
    np.testing.assert_allclose((recording.values - 1000) / 10, values, atol=0.0501)
    image = nibabel.load(path)
    assert image.get_data_dtype() == np.int16
    assert image.header.get_xyzt_units() == ("mm", "sec")
    assert not np.asarray(image.dataobj)[~np.asarray(space.mask)].any()
    assert {p.name for p in path.parent.iterdir()} == {"bold.nii.gz", "mask.nii.gz"}


def test_a_mask_reads_back_as_a_region(tmp_path: Path) -> None:
    space = mni_space(resolution=8)
    write_mask(space.regions["IFG"], space, tmp_path / "ifg.nii.gz")
    again = space.with_regions({"IFG": tmp_path / "ifg.nii.gz"})
    np.testing.assert_array_equal(again.regions["IFG"], space.regions["IFG"])
