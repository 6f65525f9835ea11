"""Regions: parcels are where the atlas has them, on any grid, and their means may replace targets."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest

from langcortex.brain.recording import Recording, average_over_parcels
from langcortex.brain.regions import (
    Atlas,
    add_atlas_regions,
    average_parcels,
    find_region_masks,
    parcel_means,
    parcel_names,
)
from langcortex.brain.space import Space, volume_space
from langcortex.errors import RecordingError, SettingsError
from langcortex.study.check import check_study
from langcortex.study.corpus import open_corpus
from langcortex.study.settings_file import make_study
from langcortex.study.subject import read_subject

AFFINE = np.diag([4.0, 4.0, 4.0, 1.0])
SHAPE = (6, 5, 4)


def image(data: np.ndarray, path: Path, affine: np.ndarray = AFFINE) -> Path:
    nibabel.save(nibabel.Nifti1Image(data, affine), path)
    return path


@pytest.fixture
def numbers() -> np.ndarray:
    """Three parcels by the first axis, and a fourth that lies outside the mask."""
    data = np.zeros(SHAPE, dtype=np.int16)
    data[0:2], data[2:4], data[4] = 1, 2, 7
    data[5] = 9
    return data


@pytest.fixture
def space() -> Space:
    mask = np.ones(SHAPE, dtype=bool)
    mask[5] = False
    mask[:, 0] = False
    return Space("volume", np.arange(mask.sum()).astype(str), mask=mask, affine=AFFINE)


def labels(folder: Path, rows: dict[int, str]) -> Path:
    path = folder / "labels.tsv"
    path.write_text("index\tname\n" + "".join(f"{n}\t{name}\n" for n, name in rows.items()), encoding="utf-8")
    return path


# volumes


@pytest.mark.parametrize("dtype", [np.int16, np.float64])
def test_a_parcel_is_the_voxels_with_its_number(tmp_path, numbers, space, dtype):
    atlas = Atlas(
        image(numbers.astype(dtype), tmp_path / "a.nii.gz"),
        labels(tmp_path, {1: "A", 2: "B", 7: "C", 9: "D"}),
    )
    named = add_atlas_regions(space, atlas)
    assert list(named.regions) == ["A", "B", "C"]
    for name, number in (("A", 1), ("B", 2), ("C", 7)):
        np.testing.assert_array_equal(named.regions[name], numbers[space.mask] == number)
    (remark,) = named.remarks
    assert "1 of the 4 parcels of a.nii.gz contain none of the 80 targets and are left out: D." in remark
    assert parcel_names(atlas) == ["A", "B", "C", "D"]


def test_parcels_without_labels_are_called_by_their_number(tmp_path, numbers, space):
    assert list(add_atlas_regions(space, Atlas(image(numbers, tmp_path / "a.nii"))).regions) == [
        "parcel-1", "parcel-2", "parcel-7",
    ]  # fmt: skip


def test_an_atlas_on_a_finer_grid_is_resampled_by_nearest_neighbour_and_a_remark_reports_it(
    tmp_path, numbers, space
):
    """Each 4 mm voxel is cut into eight of 2 mm: the centres of the large ones lie in the right parcel."""
    fine = numbers.repeat(2, axis=0).repeat(2, axis=1).repeat(2, axis=2)
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    affine[:3, 3] = -1.0  # the first fine centre lies 1 mm before the first coarse centre
    named = add_atlas_regions(space, Atlas(image(fine, tmp_path / "fine.nii.gz", affine)))
    for name, number in (("parcel-1", 1), ("parcel-2", 2), ("parcel-7", 7)):
        np.testing.assert_array_equal(named.regions[name], numbers[space.mask] == number)
    assert (
        "12 × 10 × 8 voxels of 2 × 2 × 2 mm, the recordings 6 × 5 × 4 voxels of 4 × 4 × 4 mm"
        in named.remarks[0]
    )
    assert (
        add_atlas_regions(space, Atlas(image(numbers, tmp_path / "same.nii"), keep=("parcel-1",))).remarks
        == ()
    )


def test_probabilities_are_cut_at_the_threshold_and_parcels_may_overlap(tmp_path, space):
    chance = np.zeros((*SHAPE, 3), dtype=np.float32)
    chance[0:3, ..., 0], chance[2:5, ..., 1], chance[..., 2] = 0.5, 0.4, 0.1
    path = image(chance, tmp_path / "p.nii.gz")
    named = add_atlas_regions(space, Atlas(path, labels(tmp_path, {0: "Background", 1: "A", 2: "B", 3: "C"})))
    np.testing.assert_array_equal(named.regions["A"], (chance[..., 0] >= 0.25)[space.mask])
    np.testing.assert_array_equal(named.regions["B"], (chance[..., 1] >= 0.25)[space.mask])
    assert (named.regions["A"] & named.regions["B"]).any()
    assert "left out: C" in named.remarks[0]
    assert list(add_atlas_regions(space, Atlas(path, threshold=0.45)).regions) == ["parcel-1"]
    percent = add_atlas_regions(space, Atlas(image(chance * 100, tmp_path / "percent.nii"))).regions
    np.testing.assert_array_equal(percent["parcel-1"], named.regions["A"])
    assert list(percent) == ["parcel-1", "parcel-2"]  # a tenth is below a quarter in percent too
    from_zero = add_atlas_regions(space, Atlas(path, labels(tmp_path, {0: "A", 1: "B", 2: "C"})))
    np.testing.assert_array_equal(from_zero.regions["B"], named.regions["B"])
    with pytest.raises(RecordingError, match=r"names 2 parcels, but .* has 3 maps"):
        add_atlas_regions(space, Atlas(path, labels(tmp_path, {1: "A", 2: "B"})))


def test_only_the_selected_parcels_become_regions(tmp_path, numbers, space):
    path, named = image(numbers, tmp_path / "a.nii"), labels(tmp_path, {1: "A", 2: "B", 7: "C", 9: "D"})
    assert list(add_atlas_regions(space, Atlas(path, named, ("C", "A"))).regions) == ["A", "C"]
    with pytest.raises(RecordingError, match=r"keep names 'Aa', which .* does not have. Did you mean 'A'?"):
        add_atlas_regions(space, Atlas(path, named, ("Aa",)))
    with pytest.raises(
        RecordingError, match=r"'D' .* which recording.atlas.keep names, covers none of the 80"
    ):
        add_atlas_regions(space, Atlas(path, named, ("A", "D")))


def test_an_atlas_that_does_not_fit_is_an_error(tmp_path, numbers, space):
    def check_error(match, *args):
        with pytest.raises(RecordingError, match=match):
            add_atlas_regions(space, Atlas(*args))

    far = AFFINE.copy()
    far[:3, 3] = 900
    check_error("covers none of the 80 targets", image(numbers, tmp_path / "far.nii", far))
    a = image(numbers, tmp_path / "a.nii")
    check_error(r"numbers 1 and 2 of .* are both called 'A'", a, labels(tmp_path, {1: "A", 2: "A"}))
    check_error(r"'brain' is a parcel .* also the name of all targets", a, labels(tmp_path, {1: "brain"}))
    check_error(
        r"has the value 1.4, but parcel numbers are integers", image(numbers * 1.4, tmp_path / "w.nii")
    )
    check_error("does not exist", tmp_path / "gone.nii.gz")
    check_error("does not fit a recording with targets of kind 'volume'", tmp_path / "a.tsv")
    occupied = Space("volume", space.names, space.mask, AFFINE, regions={"parcel-1": np.ones(80, dtype=bool)})
    with pytest.raises(
        RecordingError, match=r"'parcel-1' is a parcel of .* also the name of a region of recording.regions"
    ):
        add_atlas_regions(occupied, Atlas(a))
    with pytest.raises(RecordingError, match="cannot be called 'brain'"):
        space.with_regions({"brain": ["1"]})


def test_many_parcels_of_a_fine_atlas_are_resampled_together(tmp_path, rng):
    """Four hundred parcels are one resampling, not four hundred."""
    shape = (40, 40, 30)
    data = rng.integers(0, 401, shape).astype(np.int16)
    mask = np.zeros((20, 20, 15), dtype=bool)
    mask[2:18, 2:18, 2:13] = True
    affine = np.diag([4.0, 4.0, 4.0, 1.0])
    space = Space("volume", np.arange(mask.sum()).astype(str), mask=mask, affine=affine)
    named = add_atlas_regions(space, Atlas(image(data, tmp_path / "a.nii", np.diag([2.0, 2.0, 2.0, 1.0]))))
    assert 390 < len(named.regions) <= 400
    assert sum(inside.sum() for inside in named.regions.values()) == np.count_nonzero(
        data[::2, ::2, ::2][mask]
    )


# surfaces


def _gifti(path: Path, keys: np.ndarray, names: dict[int, str]) -> None:
    table = nibabel.gifti.GiftiLabelTable()
    for key, name in names.items():
        label = nibabel.gifti.GiftiLabel(key)
        label.label = name
        table.labels.append(label)
    array = nibabel.gifti.GiftiDataArray(
        keys.astype(np.int32), intent="NIFTI_INTENT_LABEL", datatype="NIFTI_TYPE_INT32"
    )
    nibabel.save(nibabel.gifti.GiftiImage(darrays=[array], labeltable=table), path)


SURFACE = Space("surface", np.arange(16).astype(str), hemispheres=(7, 9))


def test_gifti_labels_name_the_parcels_of_each_hemisphere(tmp_path):
    left, right = np.array([0, 1, 1, 2, 2, 2, 0]), np.array([3, 3, 0, 1, 1, 1, 1, 0, 3])
    names = {0: "???", 1: "IFG", 2: "STG", 3: "MTG"}
    _gifti(tmp_path / "a_hemi-L.label.gii", left, names)
    _gifti(tmp_path / "a_hemi-R.label.gii", right, names)
    atlas = Atlas(tmp_path / "a_hemi-{hemi}.label.gii")
    regions = add_atlas_regions(SURFACE, atlas).regions
    assert list(regions) == parcel_names(atlas) == ["L-IFG", "STG", "R-IFG", "MTG"]
    np.testing.assert_array_equal(np.flatnonzero(regions["L-IFG"]), [1, 2])
    np.testing.assert_array_equal(np.flatnonzero(regions["R-IFG"]), 7 + np.array([3, 4, 5, 6]))
    np.testing.assert_array_equal(np.flatnonzero(regions["MTG"]), 7 + np.array([0, 1, 8]))
    # a name of both hemispheres selects both
    selected = add_atlas_regions(SURFACE, Atlas(atlas.file, keep=("IFG",)))
    assert list(selected.regions) == ["L-IFG", "R-IFG"]
    with pytest.raises(RecordingError, match="has 7 and 9 vertices, but the recordings 8 and 8"):
        add_atlas_regions(Space("surface", SURFACE.names, hemispheres=(8, 8)), atlas)
    (tmp_path / "a_hemi-R.label.gii").unlink()
    with pytest.raises(RecordingError, match="has one hemisphere only"):
        add_atlas_regions(SURFACE, atlas)


def test_freesurfer_annotations_are_read_too(tmp_path):
    colours = np.array([[25, 5, 25, 0], [10, 20, 30, 0], [40, 50, 60, 0]])
    for side, keys in (
        ("lh", np.array([0, 1, 1, 2, 2, 2, -1])),
        ("rh", np.array([1, 1, 0, 2, 2, 2, 2, 0, 1])),
    ):
        nibabel.freesurfer.write_annot(tmp_path / f"{side}.a.annot", keys, colours, ["unknown", "IFG", "STG"], fill_ctab=True)  # fmt: skip
    regions = add_atlas_regions(SURFACE, Atlas(tmp_path / "{hemi}.a.annot")).regions
    assert list(regions) == ["L-IFG", "L-STG", "R-IFG", "R-STG"]
    np.testing.assert_array_equal(np.flatnonzero(regions["L-STG"]), [3, 4, 5])
    np.testing.assert_array_equal(np.flatnonzero(regions["R-IFG"]), 7 + np.array([0, 1, 8]))


# columns, and numbers for anything


def test_columns_belong_to_the_regions_a_table_names(tmp_path):
    space = Space("columns", np.array(["a", "b", "c"]))
    path = tmp_path / "a.tsv"
    path.write_text("target\tregion\na\tX\nb\tX\nb\tY\nc\tn/a\n", encoding="utf-8")
    regions = add_atlas_regions(space, Atlas(path)).regions
    assert {name: inside.tolist() for name, inside in regions.items()} == {
        "X": [True, True, False], "Y": [False, True, False],
    }  # fmt: skip
    path.write_text("target\tregion\nz\tX\n", encoding="utf-8")
    with pytest.raises(RecordingError, match="names the target 'z', but the columns are: a, b, c"):
        add_atlas_regions(space, Atlas(path))
    path.write_text("column\tregion\nz\tX\n", encoding="utf-8")
    with pytest.raises(RecordingError, match="needs the columns 'target' and 'region'"):
        add_atlas_regions(space, Atlas(path))


def test_a_file_of_one_number_per_target_fits_every_space(tmp_path, space):
    np.save(tmp_path / "a.npy", np.arange(80) % 3)
    regions = add_atlas_regions(space, Atlas(tmp_path / "a.npy")).regions
    np.testing.assert_array_equal(regions["parcel-2"], np.arange(80) % 3 == 2)
    np.save(tmp_path / "a.npy", np.arange(9))
    with pytest.raises(RecordingError, match="has 9 numbers, but there are 80 targets"):
        add_atlas_regions(space, Atlas(tmp_path / "a.npy"))


# parcels in the place of targets


def test_a_parcel_is_the_mean_of_its_targets_and_is_scaled_like_a_target(rng):
    values = rng.standard_normal((30, 6)).astype(np.float32)
    values[:, 2] = np.nan
    space = Space("columns", np.array(list("abcdef")), regions={
        "X": np.array([1, 1, 1, 0, 0, 0], dtype=bool), "Y": np.array([0, 0, 1, 0, 0, 0], dtype=bool),
    })  # fmt: skip
    parcels = average_parcels(space)
    recording = Recording(values, np.arange(30) * 2.0, 2.0, "r", "s", space)
    plain = average_over_parcels(recording, parcels, standardise=False)
    np.testing.assert_allclose(plain.values[:, 0], values[:, :2].mean(axis=1), rtol=1e-5)
    assert np.isnan(plain.values[:, 1]).all()
    scaled = average_over_parcels(recording, parcels)
    np.testing.assert_allclose(scaled.values[:, 0].std(ddof=1), 1.0, rtol=1e-5)
    np.testing.assert_allclose(np.corrcoef(scaled.values[:, 0], plain.values[:, 0])[0, 1], 1.0, rtol=1e-6)
    assert parcels.names.tolist() == ["X", "Y"]
    assert parcels.regions["X"].tolist() == [True, False]
    assert parcels.same_as(average_parcels(space))
    assert not parcels.same_as(space)
    with pytest.raises(RecordingError, match="there are none"):
        average_parcels(Space("columns", np.array(["a"])))


def test_a_map_of_parcels_is_written_to_the_voxels_of_the_parcels(tmp_path, numbers, space):
    named = add_atlas_regions(space, Atlas(image(numbers, tmp_path / "a.nii")))
    parcels = average_parcels(named)
    paths = parcels.write(np.array([0.1, 0.2, np.nan]), tmp_path / "map")
    assert [p.name for p in paths] == ["map.nii.gz", "map.tsv"]
    painted = nibabel.load(paths[0]).get_fdata()
    np.testing.assert_allclose(painted[1, 2, 1], 0.1, rtol=1e-6)
    np.testing.assert_allclose(painted[3, 2, 1], 0.2, rtol=1e-6)
    assert np.isnan(painted[4, 2, 1])
    assert np.isnan(painted[0, 0, 0])
    assert paths[1].read_text().splitlines() == [
        "target\tvalue",
        "parcel-1\t0.1",
        "parcel-2\t0.2",
        "parcel-7\tn/a",
    ]
    np.testing.assert_allclose(parcel_means(np.ones((2, 80), dtype=np.float32), parcels), 1.0)


def test_where_parcels_overlap_a_map_has_their_mean():
    space = Space("columns", np.array(["a", "b", "c"]), regions={
        "X": np.array([1, 1, 0], dtype=bool), "Y": np.array([0, 1, 0], dtype=bool),
    })  # fmt: skip
    _, expanded = average_parcels(space).expand_parcels(np.array([1.0, 3.0]))
    np.testing.assert_array_equal(expanded, [1.0, 2.0, np.nan])


# in a study


def _study(folder: Path, rng: np.random.Generator, scans: int = 20, **recording):
    """Two runs of a volume of noise and a story."""
    (folder / "runs").mkdir(exist_ok=True)
    for run in ("a", "b"):
        data = rng.standard_normal((*SHAPE, scans)).astype(np.float32)
        image(data, folder / "runs" / f"{run}.nii", AFFINE)
        lines = ["word\tonset\tduration", *(f"w{i}.\t{2.0 * i}\t{0.5 + i % 3 / 4}" for i in range(scans))]
        (folder / "runs" / f"{run}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    settings = {
        "story": {"files": "runs/{run}.tsv"},
        "recording": {"files": "runs/{run}.nii", "tr": 2.0, "mask": "mask.nii", **recording},
        "design": {"rows": "scans"},
        "protocol": {"confounds": [], "n_nulls": 0},
        "jobs": 1,
    }
    return make_study(settings, "study.toml", folder)


def test_a_study_uses_an_atlas_as_regions_or_as_targets(tmp_path, rng, numbers, space):
    image(space.mask.astype(np.uint8), tmp_path / "mask.nii")
    image(numbers, tmp_path / "atlas.nii.gz")
    (tmp_path / "names.json").write_text(json.dumps({"1": "A", "2": "B", "7": "C"}))
    half = np.zeros(SHAPE, dtype=np.uint8)
    half[:, :3] = 1
    image(half, tmp_path / "half.nii")
    atlas = {"file": "atlas.nii.gz", "labels": "names.json", "keep": ["A", "C"]}
    study = _study(tmp_path, rng, atlas=atlas, regions={"half": "half.nii"})
    (recording, _) = read_subject(open_corpus(study), "01")
    assert list(recording.space.regions) == ["half", "A", "C"]
    by_means = _study(tmp_path, rng, atlas=atlas, regions={"half": "half.nii"}, targets="parcels")
    (mean, _) = read_subject(open_corpus(by_means), "01")
    assert mean.space.kind == "parcels"
    assert mean.values.shape == (20, 3)
    report = check_study(by_means, clock="none")
    assert report.facts["regions"] == "half, A, C"
    assert report.facts["targets"] == "3"


@pytest.mark.parametrize(
    ("recording", "message"),
    [
        ({"atlas": {"file": "atlas.nii.gz", "keep": ["Z"]}}, "keep names 'Z'"),
        ({"atlas": {"labels": "names.json"}}, "recording.atlas has no file"),
        ({"atlas": {"file": "gone.nii.gz"}}, "gone.nii.gz does not exist"),
        ({"targets": "parcels"}, 'recording.targets is "parcels", but there are none'),
        ({"regions": "nowhere"}, "is no folder"),
        ({"atlas": {"file": "atlas.nii.gz"}, "regions": {"parcel-1": "mask.nii"}}, "name of a parcel and of a region"),
    ],
)  # fmt: skip
def test_check_reports_what_is_wrong_with_regions(tmp_path, rng, numbers, space, recording, message):
    image(space.mask.astype(np.uint8), tmp_path / "mask.nii")
    image(numbers, tmp_path / "atlas.nii.gz")
    problems = check_study(_study(tmp_path, rng, **recording), clock="none").problems
    assert any(message in problem for problem in problems), problems


def test_a_mistyped_setting_of_the_atlas_is_named():
    with pytest.raises(
        SettingsError, match=r"\[recording.atlas\]: no setting is called 'label'. Did you mean 'labels'"
    ):
        make_study({"recording": {"atlas": {"file": "a.nii", "label": "x"}}})


def test_an_atlas_is_not_for_a_corpus_of_ones_own(tmp_path):
    study = make_study(
        {"data": {"corpus": "mine:corpus"}, "recording": {"atlas": {"file": "a.nii"}}}, folder=tmp_path
    )
    with pytest.raises(SettingsError, match=r"recording.atlas is for corpora that langcortex reads"):
        open_corpus(study)


def test_a_folder_or_a_pattern_of_masks_gives_regions(tmp_path):
    for name in ("BA44", "TP"):
        image(np.ones(SHAPE, dtype=np.uint8), tmp_path / f"{name}.nii.gz")
    (tmp_path / "notes.txt").write_text("no mask")
    assert (
        list(find_region_masks(tmp_path))
        == list(find_region_masks(tmp_path / "{region}.nii.gz"))
        == ["BA44", "TP"]
    )
    assert list(find_region_masks(tmp_path / "B{region}.nii.gz")) == ["A44"]
    with pytest.raises(RecordingError, match="No mask was found"):
        find_region_masks(tmp_path / "{region}.npy")
    image(np.ones(SHAPE, dtype=np.uint8), tmp_path / "TP.nii")
    with pytest.raises(RecordingError, match="have the same name"):
        find_region_masks(tmp_path)


# real atlases and masks


LPP_ROIS = {"AG_TPJ": 56, "BA44": 56, "BA45": 53, "BA47": 81, "TP": 59, "aSTS": 56, "pSTS": 69}


def test_the_seven_masks_of_the_little_prince_are_read_from_their_folder(shared_data, tmp_path):
    folder = shared_data / "lpp"
    if not (folder / "roi_masks").is_dir():
        pytest.skip(f"the Little Prince is absent: no folder {folder}")
    grid = nibabel.load(folder / "mask_lpp_en.nii.gz")
    bold = image(np.zeros((*grid.shape[:3], 2), dtype=np.int16), tmp_path / "bold.nii", grid.affine)
    space = volume_space(folder / "mask_lpp_en.nii.gz", [bold])
    regions = space.with_regions(find_region_masks(folder / "roi_masks")).regions
    counts = {
        name: int(np.asarray(nibabel.load(p).dataobj).sum())
        for name, p in find_region_masks(folder / "roi_masks").items()
    }
    assert counts == LPP_ROIS
    # every voxel of every mask lies in the published brain mask
    assert {name: int(inside.sum()) for name, inside in regions.items()} == LPP_ROIS


@pytest.mark.parametrize(("n_subjects", "n_regions"), [(1, 101), (2, 2)])
def test_with_many_parcels_and_subjects_scores_per_run_are_kept_for_the_studys_region_only(
    n_subjects, n_regions
):
    """A hundred regions, two runs: pooled scores of all, and runs of what the study is about."""
    from langcortex.encoding.scores import Encoding
    from langcortex.study.accumulate import StudyScores
    from langcortex.study.feature_spaces import Spaces

    regions = {f"p{i}": np.arange(100) == i for i in range(100)}
    space = Space("columns", np.arange(100).astype(str), regions=regions)
    values = np.ones((2, 100))
    runs = np.array(["a", "b"])
    encoding = Encoding("m", "s", runs, runs, values, values, values, values, values, values, runs)
    gather = StudyScores(Spaces({}, {}, (), {}, {}, {}), n_subjects, "p7")
    gather.add_encoding(encoding, "m", 0, space, ("r", "r2"))
    table = gather.table()
    assert (table.run == "all").sum() == 2 * 101
    assert (table.run == "a").sum() == 2 * n_regions
    assert set(table.region[table.run == "a"]) >= {"brain", "p7"}


@pytest.mark.parametrize("targets", ["all", "parcels"])
def test_a_study_scores_parcels_and_writes_their_maps(tmp_path, rng, space, targets):
    """Fifteen parcels, one of them outside the mask: scores, maps and the report have the fourteen others."""
    from langcortex.study.run import run_study, write_results

    image(space.mask.astype(np.uint8), tmp_path / "mask.nii")
    parcels = np.arange(np.prod(SHAPE)).reshape(SHAPE) // 8 + 1
    image(parcels.astype(np.int16), tmp_path / "atlas.nii")
    study = _study(tmp_path, rng, 60, atlas={"file": "atlas.nii"}, targets=targets, clock="trust")
    results = run_study(study)
    write_results(results, tmp_path / "results")
    n_inside = len(np.unique(parcels[space.mask]))
    scores = results.scores
    assert scores.region.nunique() == 1 + n_inside
    assert any("parcels of atlas.nii contain none" in w for w in results.warnings)
    painted = nibabel.load(tmp_path / "results" / "maps" / "duration_stat-r.nii.gz").get_fdata()
    assert np.isfinite(painted[space.mask]).all()
    assert np.isnan(painted[~space.mask]).all()
    pooled = scores[(scores.model == "duration") & (scores.metric == "r") & (scores.run == "all")]
    mean = dict(zip(pooled.region, pooled.value, strict=True))
    for number in (4, 9):
        here = space.mask & (parcels == number)
        np.testing.assert_allclose(painted[here].mean(), mean[f"parcel-{number}"], rtol=1e-4, atol=1e-6)
    assert (np.ptp(painted[space.mask & (parcels == 4)]) < 1e-9) == (targets == "parcels")
    assert (tmp_path / "results" / "report.html").is_file()
    assert (tmp_path / "results" / "maps" / "duration_stat-r.tsv").is_file() == (targets == "parcels")
