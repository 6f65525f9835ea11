"""Simulated responses: the signal has the place, the delay and the size that were asked for, and is nowhere else."""

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
def story() -> Story:
    return demo_story()


@pytest.fixture(scope="module")
def states(story: Story) -> Features:
    """One column, so that every language target depends on it up to its sign."""
    s = story.sentences
    values = np.random.default_rng(1).standard_normal((len(s), 1))
    return Features("states", s.ids, s.onset, s.duration, s.run, values)


def drive(story: Story, run: str, value: np.ndarray, delay: float, n: int, tr: float) -> np.ndarray:
    """Average what is played during each scan, on a grid of hundredths of a second."""
    s = story.sentences
    fine = np.zeros(round(n * tr * 100))
    for i in np.flatnonzero(s.run == run):
        first, last = (round((t + delay) * 100) for t in (s.onset[i], s.onset[i] + s.duration[i]))
        fine[first:last] = value[i]
    return fine.reshape(n, -1).mean(axis=1)


def correlate(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    x, y = x - x.mean(), y - y.mean(axis=0)
    return (x @ y) / np.sqrt((x @ x) * np.square(y).sum(axis=0))


def make(story: Story, states: Features, settings: Plant, seed: int = 0) -> dict[str, np.ndarray]:
    return plant(story, states, LANGUAGE, AUDITORY, settings, np.random.default_rng(seed))


@pytest.mark.parametrize(("delay", "tr"), [(6.0, 2.0), (4.0, 2.0), (7.5, 1.5)])
def test_the_signal_has_the_planted_delay_and_is_only_in_planted_targets(
    story: Story, states: Features, delay: float, tr: float
) -> None:
    """The cross-correlation with the story is highest at the planted delay."""
    responses = make(story, states, Plant(signal=0.8, delay=delay, tr=tr, drift=0.0))
    length = story.sentences.duration - story.sentences.duration.mean()
    state = states.values[:, 0] - states.values[:, 0].mean()
    candidates = [0.0, 1.0, delay - tr, delay, delay + tr, delay + 3 * tr]
    for value, followers in ((state, LANGUAGE), (length, AUDITORY)):
        r = np.zeros((len(candidates), 60))
        for run, y in responses.items():
            for i, d in enumerate(candidates):
                r[i] += correlate(drive(story, run, value, d, len(y), tr), y) / len(responses)
        assert (np.abs(r[:, followers]).argmax(axis=0) == 3).all()
        assert np.abs(r[3, followers]).mean() == pytest.approx(np.sqrt(0.8), abs=0.03)
        assert np.abs(r[:, SILENT]).mean() < 0.06


@pytest.mark.parametrize("signal", [0.0, 0.3, 0.7])
def test_the_signal_has_the_planted_share_of_variance(story: Story, states: Features, signal: float) -> None:
    responses = make(story, states, Plant(signal=signal, drift=0.0, autocorrelation=0.3))
    state = states.values[:, 0] - states.values[:, 0].mean()
    shares = [
        np.square(correlate(drive(story, run, state, 6.0, len(y), 2.0), y[:, LANGUAGE]))
        for run, y in responses.items()
    ]
    assert np.mean(shares) == pytest.approx(signal, abs=0.04)


def test_every_target_varies_about_as_much(story: Story, states: Features) -> None:
    y = np.concatenate([run - run.mean(axis=0) for run in make(story, states, Plant(drift=0.0)).values()])
    np.testing.assert_allclose(y.std(axis=0), 1.0, atol=0.25)


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.8])
def test_the_noise_has_the_planted_autocorrelation(story: Story, states: Features, rho: float) -> None:
    responses = make(story, states, Plant(signal=0.0, drift=0.0, autocorrelation=rho))
    y = [run - run.mean(axis=0) for run in responses.values()]
    lag = sum((run[1:] * run[:-1]).sum() for run in y) / sum((run**2).sum() for run in y)
    assert lag == pytest.approx(rho, abs=0.05)


def test_the_drift_is_slow_and_has_the_planted_size(story: Story, states: Features) -> None:
    still = make(story, states, Plant(signal=0.0, drift=0.0), seed=3)["run-1"]
    drifting = make(story, states, Plant(signal=0.0, drift=2.0), seed=3)["run-1"] - still
    assert np.abs(drifting).max() == pytest.approx(2 * np.sqrt(2), rel=0.01)
    assert np.abs(np.diff(drifting, axis=0)).max() < 0.5


def test_language_targets_mix_the_planted_number_of_components(story: Story) -> None:
    s = story.sentences
    wide = np.random.default_rng(2).standard_normal((len(s), 40)) * np.logspace(0, 2, 40)
    table = Features("wide", s.ids, s.onset, s.duration, s.run, wide)
    single = make(story, table, Plant(signal=1.0, n_components=1))["run-2"][:, LANGUAGE]
    three = make(story, table, Plant(signal=1.0, n_components=3))["run-2"][:, LANGUAGE]
    assert np.linalg.matrix_rank(single, tol=1e-3) == 1
    assert np.linalg.matrix_rank(three, tol=1e-3) == 3


def test_the_number_of_scans_follows_from_the_tail_or_is_passed_in(story: Story, states: Features) -> None:
    responses = make(story, states, Plant(tail=14.0))
    s = story.sentences
    for run, y in responses.items():
        end = (s.onset + s.duration)[s.run == run].max()
        assert y.dtype == np.float32
        assert (len(y) - 1) * 2.0 < end + 14.0 <= len(y) * 2.0
    counts = {run: 100 + i for i, run in enumerate(story.runs)}
    planted = plant(story, states, LANGUAGE, AUDITORY, Plant(), np.random.default_rng(0), counts)
    assert {run: len(y) for run, y in planted.items()} == counts


def test_the_same_seed_plants_the_same_brain(story: Story, states: Features) -> None:
    first, second, different = (make(story, states, Plant(), seed)["run-3"] for seed in (5, 5, 6))
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, different)


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
    space_on_disk = volume_space(mask, [path])
    assert space_on_disk.same_as(space)
    recording = read_recording(path, "run-1", "01", space=space_on_disk, cleaning=RAW)
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
