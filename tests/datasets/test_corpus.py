"""Corpora on disk: onsets, regions and masks of the study are used for every recording."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest

from langcortex.errors import SettingsError
from reference.corpora import RAW, corpus, read, table, volume


def test_tables_are_read_with_their_onsets_and_regions(tmp_path: Path, rng: np.random.Generator) -> None:
    values = {run: rng.standard_normal((20, 4)) for run in ("a", "b")}
    for run, data in values.items():
        table(tmp_path / f"s1_{run}.tsv", data)
    dataset = corpus(
        tmp_path, "s{subject}_{run}.tsv", tr=1.5, stimulus_onset={"a": 3.0, "b": 0.5}, cleaning=RAW,
        regions={"front": ["t0", "t3"]}, reference=0.0,
    )  # fmt: skip
    a, b = read(dataset, "1")
    assert (a.run, b.run) == ("a", "b")
    np.testing.assert_allclose(a.values, values["a"], rtol=1e-5)
    np.testing.assert_allclose(b.values, values["b"], rtol=1e-5)
    np.testing.assert_allclose(a.onset, 1.5 * np.arange(20) - 3.0)
    np.testing.assert_allclose(b.onset, 1.5 * np.arange(20) - 0.5)
    assert a.reference == 0.0
    for recording in (a, b):
        assert recording.space.regions["front"].tolist() == [True, False, False, True]
    assert dataset.inventory("1") == {"a": (20, 1.5, 3.0), "b": (20, 1.5, 0.5)}


def test_a_run_without_a_stimulus_onset_is_named(tmp_path: Path, rng: np.random.Generator) -> None:
    table(tmp_path / "s1_a.tsv", rng.standard_normal((20, 2)))
    dataset = corpus(tmp_path, "s{subject}_{run}.tsv", tr=2.0, stimulus_onset={"b": 1.0})
    with pytest.raises(SettingsError, match=r"^recording\.stimulus_onset has no number for run 'a'"):
        read(dataset, "1")


def test_a_mask_is_computed_over_all_runs_of_all_subjects(tmp_path: Path, rng: np.random.Generator) -> None:
    for subject in ("1", "2"):
        for run in ("a", "b"):
            volume(tmp_path / f"s{subject}_{run}.nii.gz", rng, (12, 12, 12))
    dataset = corpus(tmp_path, "s{subject}_{run}.nii.gz", cleaning=RAW)
    assert len(dataset.volumes()) == 4
    space = dataset.space_of("1")
    assert space.mask is not None
    bright = np.zeros((12, 12, 12), dtype=bool)
    bright[2:-2, 2:-2, 2:-2] = True
    assert not (space.mask & ~bright).any()
    assert space.mask[4:-4, 4:-4, 4:-4].all()
    first, second = read(dataset, "1")[0], read(dataset, "2")[1]
    assert first.space.same_as(second.space)
    assert first.tr == 2.0


def test_a_mask_may_be_a_file_or_all_voxels(tmp_path: Path, rng: np.random.Generator) -> None:
    data = volume(tmp_path / "s1_a.nii.gz", rng)
    inside = np.zeros((5, 4, 3), dtype=np.uint8)
    inside[2, 2, 1] = inside[3, 1, 0] = 1
    affine = np.diag([4.0, 4.0, 4.0, 1.0])
    nibabel.save(nibabel.Nifti1Image(inside, affine), tmp_path / "mask.nii.gz")
    region = np.zeros_like(inside)
    region[2, 2, 1] = 1
    nibabel.save(nibabel.Nifti1Image(region, affine), tmp_path / "region.nii.gz")
    masked = corpus(
        tmp_path, "s{subject}_{run}.nii.gz", mask=tmp_path / "mask.nii.gz", cleaning=RAW,
        regions={"spot": tmp_path / "region.nii.gz"},
    )  # fmt: skip
    (recording,) = read(masked, "1")
    np.testing.assert_allclose(recording.values.T, data[inside.astype(bool)], rtol=1e-5)
    assert recording.space.regions["spot"].tolist() == [True, False]
    (unmasked,) = read(corpus(tmp_path, "s{subject}_{run}.nii.gz", mask="all", cleaning=RAW), "1")
    np.testing.assert_allclose(unmasked.values.T, data.reshape(60, -1), rtol=1e-5)
    assert masked.inventory("1") == {"a": (8, 2.0, 0.0)}
