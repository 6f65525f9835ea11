"""Pereira 2018: three forms of one study give sentences in runs that folds do not split."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.io import savemat

from langcortex.datasets import Corpus
from langcortex.datasets.corpus import Reading
from langcortex.datasets.pereira import corpus
from langcortex.errors import LangcortexError, RecordingError, SettingsError, StoryError

TEXTS = ["A bee makes honey.", "Bees live in hives.", "A hut is small.", "An iron is hot.", "It gets warm."]
PASSAGES, TOPICS = [1, 1, 2, 3, 3], [2, 1, 2]  # passage of each sentence; topic of each passage


def cells(*texts: str, row: bool = False) -> np.ndarray:
    """Make a MATLAB cell array, a column unless `row`."""
    out = np.empty((len(texts), 1), dtype=object)
    out[:, 0] = texts
    return out.T if row else out


def mat(base: Path, subject: str, experiment: str, values: np.ndarray, **changed: Any) -> Path:
    path = base / subject / f"examples_{experiment}.mat"
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = np.empty((2, 1), dtype=object)
    columns[:] = [[np.array([[1], [3]])], [np.array([[4]])]]
    aal = np.empty((1, 1), dtype=object)
    aal[0, 0] = np.array([[2]])
    atlases, per_atlas, rois = (
        cells("aal", "languageLH", row=True),
        cells("", "", row=True),
        cells("", "", row=True),
    )
    per_atlas[0, 0], per_atlas[0, 1] = aal, columns
    rois[0, 0], rois[0, 1] = cells("Amygdala"), cells("IFG", "PostTemp")
    variables: dict[str, Any] = {
        "examples": values,
        "keySentences": cells(*TEXTS),
        "labelsSentences": np.arange(1, 6)[:, None],
        "labelsPassageForEachSentence": np.array(PASSAGES)[:, None],
        "labelsPassageCategory": np.array(TOPICS)[:, None],
        "keyPassageCategory": cells("tool", "animal farm", row=True),
        "keyPassages": cells("Bee", "Hut", "Iron"),
        "meta": {"atlases": atlases, "rois": rois, "roiColumns": per_atlas},
    }
    variables |= changed
    savemat(path, {k: v for k, v in variables.items() if v is not None}, format="5", do_compression=True)
    return path


@pytest.fixture
def values(rng: np.random.Generator) -> np.ndarray:
    return rng.standard_normal((5, 6))


def test_matlab_files_give_topics_as_runs_and_voxels_as_targets(tmp_path: Path, values: np.ndarray) -> None:
    mat(tmp_path, "P01", "384sentences", values)
    mat(tmp_path, "P01", "243sentences", values + 10)
    mat(tmp_path, "M02", "384sentences", values - 10)
    dataset = corpus(tmp_path, Reading())
    assert isinstance(dataset, Corpus)
    assert dataset.subjects() == ["M02", "P01"]
    assert sorted(dataset.story().runs) == [
        "243sentences.animal-farm", "243sentences.tool", "384sentences.animal-farm", "384sentences.tool",
    ]  # fmt: skip
    responses = dataset.recording("P01", "384sentences.animal-farm")
    assert responses.values == pytest.approx(values[[0, 1, 3, 4]].astype(np.float32))
    assert responses.space.names[[0, -1]].tolist() == ["voxel-0", "voxel-5"]
    sentences = dataset.story().take(["384sentences.animal-farm"]).sentences
    assert sentences.ids.tolist() == responses.ids.tolist()
    assert sentences.text.tolist() == [TEXTS[i] for i in (0, 1, 3, 4)]
    assert dataset.runs("M02") == ["384sentences.animal-farm", "384sentences.tool"]
    assert dataset.stimuli().stimulus.tolist()[:2] == ["384sentences.0", "384sentences.1"]  # type: ignore[attr-defined]


def test_rows_are_matched_to_sentences_by_labels(tmp_path: Path, values: np.ndarray) -> None:
    mat(tmp_path, "P01", "384sentences", values, labelsSentences=np.array([5, 4, 3, 2, 1])[:, None])
    responses = corpus(tmp_path, Reading()).recording("P01", "384sentences.tool")
    assert responses.values == pytest.approx(values[[2]].astype(np.float32))
    responses = corpus(tmp_path, Reading()).recording("P01", "384sentences.animal-farm")
    assert responses.values == pytest.approx(values[[4, 3, 1, 0]].astype(np.float32))


def test_an_atlas_selects_voxels_and_names_regions(tmp_path: Path, values: np.ndarray) -> None:
    mat(tmp_path, "P01", "384sentences", values)
    responses = corpus(tmp_path, Reading(), atlas="languageLH").recording("P01", "384sentences.tool")
    assert responses.space.names.tolist() == ["voxel-0", "voxel-2", "voxel-3"]
    assert responses.values == pytest.approx(values[[2]][:, [0, 2, 3]].astype(np.float32))
    assert {k: v.tolist() for k, v in responses.space.regions.items()} == {
        "IFG": [True, True, False], "PostTemp": [False, False, True],
    }  # fmt: skip
    amygdala = corpus(tmp_path, Reading(), atlas="aal").recording("P01", "384sentences.tool")
    assert amygdala.space.names.tolist() == ["voxel-1"]
    with pytest.raises(SettingsError, match=r"has no atlas 'MD'.*aal, languageLH"):
        corpus(tmp_path, Reading(), atlas="MD").recording("P01", "384sentences.tool")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"examples": None}, "has no variable 'examples'"),
        ({"keySentences": None}, "has no variable 'keySentences'"),
        ({"labelsSentences": np.array([[1], [2]])}, "labelsSentences does not label 5 rows"),
        (
            {"labelsPassageForEachSentence": np.array([[1], [1], [2], [3], [4]])},
            "labelsPassageForEachSentence does not label",
        ),
        ({"labelsPassageCategory": np.array([[1], [1], [3]])}, "labelsPassageCategory does not label"),
        ({"meta": {"atlases": cells("languageLH")}}, "meta does not say which voxels are in 'languageLH'"),
    ],
)
def test_a_damaged_matlab_file_is_named(
    tmp_path: Path, values: np.ndarray, changed: dict[str, Any], message: str
) -> None:
    mat(tmp_path, "P01", "384sentences", values, **changed)
    dataset = corpus(tmp_path, Reading(), atlas="languageLH")
    with pytest.raises(RecordingError, match=message) as error:
        dataset.recording("P01", "384sentences.tool")
    assert "examples_384sentences.mat" in str(error.value)


def test_subjects_must_have_seen_the_same_sentences(tmp_path: Path, values: np.ndarray) -> None:
    mat(tmp_path, "M02", "384sentences", values)
    mat(tmp_path, "P01", "384sentences", values, keySentences=cells(*TEXTS[::-1]))
    with pytest.raises(StoryError, match="lists other sentences than"):
        corpus(tmp_path, Reading()).recording("P01", "384sentences.tool")


def test_truncated_and_unfetched_matlab_files_are_errors(tmp_path: Path, values: np.ndarray) -> None:
    path = mat(tmp_path, "P01", "384sentences", values)
    content = path.read_bytes()
    for cut in (0, 60, 128, 200, len(content) // 2, len(content) - 40):
        path.write_bytes(content[:cut])
        with pytest.raises(LangcortexError, match=r"examples_384sentences\.mat"):
            corpus(tmp_path, Reading()).recording("P01", "384sentences.tool")
    path.write_text("/annex/objects/MD5E-s1.mat")
    with pytest.raises(RecordingError, match="datalad get"):
        corpus(tmp_path, Reading()).story()


def test_experiments_can_be_chosen_and_absent_ones_are_named(tmp_path: Path, values: np.ndarray) -> None:
    mat(tmp_path, "P01", "384sentences", values)
    mat(tmp_path, "P01", "243sentences", values)
    assert len(corpus(tmp_path, Reading(), experiment="243sentences").story().sentences) == 5
    with pytest.raises(RecordingError, match=r"no examples_180concepts\.mat"):
        corpus(tmp_path, Reading(), experiment="180concepts").story()
    with pytest.raises(SettingsError, match="their runs are topics"):
        corpus(tmp_path, Reading(), run="passage")
    mat(tmp_path / "copy", "P01", "243sentences", values)
    with pytest.raises(RecordingError, match="Two files are 243sentences of subject 'P01'"):
        corpus(tmp_path, Reading()).story()


def test_a_folder_without_any_form_is_an_error_that_names_the_files(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match=r"none of the forms of Pereira 2018"):
        corpus(tmp_path, Reading())


# Brain-Score's assembly


def assembly(path: Path, values: np.ndarray, story: bool = True) -> Path:
    xarray = pytest.importorskip("xarray")
    pytest.importorskip("h5netcdf")

    def text(*strings: str) -> np.ndarray:
        return np.array(strings, dtype=object)

    experiment = ["384sentences"] * 3 + ["243sentences"] * 2
    topic = ["animal farm", "animal farm", "tool", "tool", "tool"]
    coords = {
        "experiment": ("presentation", text(*experiment)),
        "stimulus": ("presentation", text(*TEXTS)),
        "passage_category": ("presentation", text(*topic)),
        "stimulus_id": ("presentation", text(*(f"{e}.{i}" for i, e in enumerate(experiment)))),
        "subject": ("neuroid", text("018", "018", "288")),
        "atlas": ("neuroid", text("language", "language", "language")),
        "neuroid_id": ("neuroid", text("018.12", "018.13", "288.12")),
    }
    if story:
        coords["story"] = (
            "presentation",
            text(*(f"{e}.{t}" for e, t in zip(experiment, topic, strict=True))),
        )
    table = xarray.DataArray(values, dims=("presentation", "neuroid"), coords=coords, name="data")
    table.to_netcdf(path, engine="h5netcdf")
    return path


@pytest.mark.parametrize("story", [True, False])
def test_an_assembly_s_runs_are_topics_within_experiments(
    tmp_path: Path, rng: np.random.Generator, story: bool
) -> None:
    values = rng.standard_normal((5, 3))
    values[3:, 2] = np.nan
    assembly(tmp_path / "assy_Pereira2018_language.nc", values, story)
    assembly(tmp_path / "assy_Pereira2018_auditory.nc", values * 2, story)
    dataset = corpus(tmp_path, Reading())
    assert dataset.story().runs == ("384sentences.animal-farm", "384sentences.tool", "243sentences.tool")
    assert dataset.story().name == "pereira-2018"
    assert dataset.runs("288") == ["384sentences.animal-farm", "384sentences.tool"]
    responses = dataset.recording("018", "243sentences.tool")
    assert responses.values == pytest.approx(values[3:, :2].astype(np.float32))
    auditory = corpus(tmp_path, Reading(), atlas="auditory", experiment="243sentences")
    assert auditory.story().runs == ("243sentences.tool",)
    assert auditory.recording("018", "243sentences.tool").values == pytest.approx(
        2 * values[3:, :2].astype(np.float32)
    )
    with pytest.raises(RecordingError, match="Subject '288' has no response to any"):
        auditory.runs("288")
    assert "10.1038/s41467-018-03068-4" in dataset.citation()  # type: ignore[attr-defined]


# the table of regions

HEADER = "UID,Session,Experiment,Stim,Sentence,DurationTR,Lang_LH_IFG,Lang_LH_netw,MD_LH_netw"


def test_a_table_has_regions_as_targets_and_experiments_as_runs(tmp_path: Path) -> None:
    lines = [
        f'{u},s1,{e},{i},"{t}",2,{i},{i + 1},{u}'
        for u in (18, 288)
        for e in ("exp1", "exp2")
        for i, t in enumerate(TEXTS)
    ]
    path = tmp_path / "Pereira_FirstSession_TrialEffectSizes_20220223.csv"
    path.write_text("\n".join([HEADER, *lines]) + "\n", encoding="utf-8")
    dataset = corpus(tmp_path, Reading())
    assert dataset.subjects() == ["18", "288"]
    assert dataset.story().runs == ("exp1", "exp2")
    responses = dataset.recording("288", "exp2")
    assert responses.values.tolist() == [[i, i + 1, 288] for i in range(5)]
    assert responses.space.regions["language"].tolist() == [True, True, False]
    assert responses.space.regions["multiple-demand"].tolist() == [False, False, True]
    assert corpus(path, Reading(), experiment="exp2").story().runs == ("exp2",)
    with pytest.raises(SettingsError, match="has no experiment 'exp3'"):
        corpus(path, Reading(), experiment="exp3").story()
    with pytest.raises(RecordingError, match="has no column 'passage'"):
        corpus(path, Reading(), run="passage").story()
    path.write_text("UID,Experiment,Stim,Sentence\n1,a,1,One.\n", encoding="utf-8")
    with pytest.raises(RecordingError, match="no column of a region"):
        corpus(path, Reading()).story()
