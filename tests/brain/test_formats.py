"""File formats: timing, surfaces, tables and confounds are read as written, and errors name the file."""

import json

import nibabel
import numpy as np
import pandas as pd
import pytest

from langcortex.brain.formats import count_scans
from langcortex.brain.recording import Cleaning, read_recording
from langcortex.brain.space import volume_space
from langcortex.errors import RecordingError
from reference.images import save_image, save_mask

RAW = Cleaning(detrend=False, high_pass=None, standardise=False)


@pytest.mark.parametrize(
    ("tr", "unit", "seconds"), [(1.5, "sec", 1.5), (1500.0, "msec", 1.5), (0.72, "sec", 0.72)]
)
def test_the_tr_is_read_from_the_header_in_the_headers_unit(tmp_path, brain, tr, unit, seconds):
    path = save_image(brain[0], tmp_path / "bold.nii.gz", tr, unit)
    assert count_scans(path)[1] == pytest.approx(seconds)


def test_the_sidecar_overrides_the_header_and_the_setting_overrides_both(tmp_path, brain):
    data, inside = brain
    path = save_image(data, tmp_path / "sub-01_bold.nii.gz", 2.0)
    space = volume_space(save_mask(inside, tmp_path / "mask.nii"), [path])
    sidecar = tmp_path / "sub-01_bold.json"
    sidecar.write_text(json.dumps({"RepetitionTime": 1.25}))
    assert count_scans(path)[1] == 1.25
    assert read_recording(path, "1", "01", space=space, cleaning=RAW).tr == 1.25
    assert read_recording(path, "1", "01", space=space, cleaning=RAW, tr=3.0).tr == 3.0
    sidecar.write_text("{")
    with pytest.raises(RecordingError, match=r"sub-01_bold\.json cannot be read as a sidecar"):
        count_scans(path)


def test_confounds_that_do_not_fit_are_named(tmp_path, rng):
    np.save(tmp_path / "r.npy", rng.standard_normal((50, 3)))
    pd.DataFrame({"trans_x": rng.standard_normal(49), "text": ["a"] * 49}).to_csv(
        tmp_path / "c.tsv", sep="\t", index=False
    )

    def read(names, **options):
        return read_recording(
            tmp_path / "r.npy", "1", "01", tr=2.0, cleaning=Cleaning(confounds=names), **options
        )

    with pytest.raises(RecordingError, match=r"has no column 'trans_z'\. It has: trans_x, text"):
        read(("trans_z",), confounds=tmp_path / "c.tsv")
    with pytest.raises(RecordingError, match="has 49 rows but the recording has 50 scans"):
        read(("trans_x",), confounds=tmp_path / "c.tsv")
    pd.DataFrame({"text": ["a"] * 50}).to_csv(tmp_path / "t.tsv", sep="\t", index=False)
    with pytest.raises(RecordingError, match=r"t.tsv"):
        read(("text",), confounds=tmp_path / "t.tsv")


def _gifti(path, values, one_array, step=None):
    meta = nibabel.gifti.GiftiMetaData({"TimeStep": step} if step else {})
    parts = [values.T] if one_array else list(values)
    arrays = [
        nibabel.gifti.GiftiDataArray(p.astype(np.float32), datatype="NIFTI_TYPE_FLOAT32", meta=meta)
        for p in parts
    ]
    nibabel.save(nibabel.gifti.GiftiImage(darrays=arrays), path)
    return path


@pytest.mark.parametrize("one_array", [True, False], ids=["one array", "one array per scan"])
def test_surfaces_are_read_left_then_right(tmp_path, rng, one_array):
    left, right = rng.standard_normal((20, 7)), rng.standard_normal((20, 9))
    paths = tuple(
        _gifti(tmp_path / f"hemi-{h}.func.gii", v, one_array, "1500.0")
        for h, v in (("L", left), ("R", right))
    )
    recording = read_recording(paths, "1", "01", cleaning=RAW)
    np.testing.assert_allclose(recording.values, np.hstack([left, right]), rtol=1e-6)
    assert recording.space.hemispheres == (7, 9)
    assert recording.tr == 1.5
    assert count_scans(paths) == (20, 1.5)


def test_surfaces_that_do_not_fit_are_named(tmp_path, rng):
    left = _gifti(tmp_path / "L.func.gii", rng.standard_normal((20, 7)), False)
    short = _gifti(tmp_path / "R.func.gii", rng.standard_normal((19, 7)), False)
    with pytest.raises(RecordingError, match=r"L.func.gii has 20 scans but R.func.gii 19"):
        read_recording((left, short), "1", "01", tr=2.0)
    (tmp_path / "text.gii").write_text("no surface " * 200)
    with pytest.raises(RecordingError, match=r"text.gii"):
        read_recording((left, tmp_path / "text.gii"), "1", "01", tr=2.0)


@pytest.mark.parametrize("ending", [".tsv", ".csv", ".txt", ".npy"])
def test_tables_are_scans_by_targets(tmp_path, rng, ending):
    values = rng.standard_normal((12, 3)).astype(np.float32)
    path = tmp_path / f"regions{ending}"
    if ending == ".npy":
        np.save(path, values)
    elif ending == ".txt":
        np.savetxt(path, values)
    else:
        pd.DataFrame(values, columns=["LATL", "RATL", "IFG"]).to_csv(
            path, sep="\t" if ending == ".tsv" else ",", index=False
        )
    names = None if ending in (".tsv", ".csv") else ["LATL", "RATL", "IFG"]
    recording = read_recording(path, "1", "01", tr=2.0, cleaning=RAW, columns=names)
    np.testing.assert_allclose(recording.values, values, rtol=1e-5)
    assert recording.space.names.tolist() == ["LATL", "RATL", "IFG"]
    assert count_scans(path)[0] == 12
    if names:
        with pytest.raises(RecordingError, match="has 3 columns but 2 names were given"):
            read_recording(path, "1", "01", tr=2.0, columns=["a", "b"])


def test_tables_that_hold_text_or_ragged_rows_are_named(tmp_path):
    (tmp_path / "a.tsv").write_text("x\ty\n1\ttwo\n")
    (tmp_path / "b.txt").write_text("1 2\n3\n")
    np.save(tmp_path / "c.npy", np.zeros((2, 3, 4)))
    for name in ("a.tsv", "b.txt", "c.npy"):
        with pytest.raises(RecordingError, match=name):
            read_recording(tmp_path / name, "1", "01", tr=2.0)
