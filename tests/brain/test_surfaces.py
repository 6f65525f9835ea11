"""Surfaces: hemispheres that are swapped, and data that lie in another file, are refused."""

import nibabel
import numpy as np
import pytest

from langcortex.brain.atlases import Atlas, read_hemispheres
from langcortex.brain.formats import read_surface
from langcortex.errors import RecordingError


def _save(path, structure="", n_vertices=5, within="file", intent="NIFTI_INTENT_NONE", dtype=np.float32):
    array = nibabel.gifti.GiftiDataArray(np.arange(n_vertices, dtype=dtype), intent=intent)
    image = nibabel.gifti.GiftiImage(darrays=[array, array] if dtype == np.float32 else [array])
    if structure and within == "file":
        image.meta["AnatomicalStructurePrimary"] = structure
    elif structure:
        array.meta["AnatomicalStructurePrimary"] = structure
    nibabel.save(image, path)
    return path


@pytest.mark.parametrize("within", ["file", "array"])
@pytest.mark.parametrize(
    ("structures", "message"),
    [
        (("CortexRight", "CortexLeft"), "given as the left hemisphere, but it says that it is CortexRight"),
        (("CortexLeft", "CortexLeft"), "given as the right hemisphere, but it says that it is CortexLeft"),
        (("CORTEX_RIGHT", ""), "given as the left hemisphere"),
    ],
)
def test_swapped_hemispheres_are_refused(tmp_path, structures, within, message):
    paths = tuple(_save(tmp_path / f"{i}.func.gii", s, within=within) for i, s in enumerate(structures))
    with pytest.raises(RecordingError, match=message):
        read_surface(paths)


def test_hemispheres_in_order_and_without_metadata_are_read(tmp_path):
    left, right = (_save(tmp_path / f"{s}.func.gii", f"Cortex{s}") for s in ("Left", "Right"))
    values, space = read_surface((left, right))
    assert values.shape == (2, 10)
    assert space.hemispheres == (5, 5)
    plain = _save(tmp_path / "plain.func.gii")
    assert read_surface((plain, plain))[0].shape == (2, 10)


def test_swapped_hemispheres_of_an_atlas_are_refused(tmp_path):
    for side, structure in (("L", "CortexRight"), ("R", "CortexLeft")):
        _save(tmp_path / f"atlas_{side}.label.gii", structure, intent="NIFTI_INTENT_LABEL", dtype=np.int32)
    with pytest.raises(RecordingError, match="Are the two files swapped"):
        read_hemispheres(tmp_path / "atlas_{hemi}.label.gii", {})


def test_data_in_another_file_are_refused_before_they_are_read(tmp_path):
    path = _save(tmp_path / "a.func.gii")
    text = path.read_text()
    (tmp_path / "secret.bin").write_bytes(b"\0" * 400)
    encoding = text[text.index("Encoding=") :].split('"')[1]
    external = text.replace(f'Encoding="{encoding}"', 'Encoding="ExternalFileBinary"')
    external = external.replace('ExternalFileName=""', 'ExternalFileName="secret.bin"')
    path.write_text(external)
    with pytest.raises(RecordingError, match="takes its data from another file"):
        read_surface((path, path))
    path.write_text(
        text.replace("<GIFTI", '<!DOCTYPE GIFTI [<!ENTITY a "b">]>\n<GIFTI', 1).replace(
            '<!DOCTYPE GIFTI SYSTEM "http://www.nitrc.org/frs/download.php/115/gifti.dtd">', ""
        )
    )
    with pytest.raises(RecordingError, match="entities"):
        read_surface((path, path))


def test_text_and_scans_of_different_lengths_are_one_sentence(tmp_path):
    text = tmp_path / "text.func.gii"
    text.write_text("no surface " * 200)
    with pytest.raises(RecordingError, match="cannot be read as GIFTI"):
        read_surface((text, text))
    arrays = [nibabel.gifti.GiftiDataArray(np.zeros(n, dtype=np.float32)) for n in (4, 5)]
    ragged = tmp_path / "ragged.func.gii"
    nibabel.save(nibabel.gifti.GiftiImage(darrays=arrays), ragged)
    with pytest.raises(RecordingError, match="no scans of one surface"):
        read_surface((ragged, ragged))


def test_an_atlas_named_by_hemisphere_is_read_in_order(tmp_path):
    for side, structure in (("L", "CortexLeft"), ("R", "CortexRight")):
        _save(tmp_path / f"atlas_{side}.label.gii", structure, intent="NIFTI_INTENT_LABEL", dtype=np.int32)
    atlas = Atlas(tmp_path / "atlas_{hemi}.label.gii")
    assert [len(numbers) for numbers, _ in read_hemispheres(atlas.file, {})] == [5, 5]
