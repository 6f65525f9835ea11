"""Wherever a path is taken, its text is taken too."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest

from langcortex import extract, load_model, read_recording, read_story, read_study, run_study, write_results
from langcortex.brain.atlases import read_labels
from langcortex.brain.formats import read_columns, read_confounds
from langcortex.brain.regions import find_region_masks
from langcortex.brain.space import Space, common_mask, volume_space
from langcortex.cache import Store
from langcortex.errors import RecordingError, SettingsError, StoryError
from langcortex.stimulus.story import Story


def image(path: Path, values: np.ndarray, tr: float = 2.0) -> str:
    new = nibabel.Nifti1Image(values, np.diag([4.0, 4.0, 4.0, 1.0]))
    if values.ndim == 4:
        new.header.set_zooms((4, 4, 4, tr))
    nibabel.save(new, path)
    return str(path)


def test_a_story_and_a_recording(tmp_path: Path) -> None:
    (tmp_path / "w.tsv").write_text("word\tonset\tduration\nHello\t1\t.5\nyou.\t2\t.5\n")
    (tmp_path / "b.tsv").write_text("x\ty\n" + "".join(f"{i % 3}\t{i % 4}\n" for i in range(30)))
    (tmp_path / "c.tsv").write_text("z\n" + "".join(f"{i % 5}\n" for i in range(30)))
    story = read_story({"run-1": str(tmp_path / "w.tsv")})
    assert story.ids.tolist() == read_story({"run-1": tmp_path / "w.tsv"}).ids.tolist()
    assert read_confounds(str(tmp_path / "c.tsv"), (), 30)[0].shape == (30, 1)
    assert read_columns(str(tmp_path / "b.tsv"), None)[0].shape == (30, 2)
    texts = read_recording(str(tmp_path / "b.tsv"), "run-1", "01", tr=2.0, confounds=str(tmp_path / "c.tsv"))
    paths = read_recording(tmp_path / "b.tsv", "run-1", "01", tr=2.0, confounds=tmp_path / "c.tsv")
    np.testing.assert_array_equal(texts.values, paths.values)
    with pytest.raises(RecordingError, match="does not exist"):
        read_recording(str(tmp_path / "none.tsv"), "run-1", "01", tr=2.0)
    with pytest.raises(StoryError, match="does not exist"):
        read_story({"run-1": "none.TextGrid"})


def test_a_story_without_runs_is_one_sentence() -> None:
    with pytest.raises(StoryError, match="by run"):
        read_story("run-1.TextGrid")  # type: ignore[arg-type]  # what a user may write


def test_masks_and_images(tmp_path: Path, rng: np.random.Generator) -> None:
    bold = image(tmp_path / "b.nii.gz", rng.standard_normal((3, 3, 3, 30)).astype(np.float32) + 100)
    mask = image(tmp_path / "m.nii.gz", (np.arange(27).reshape(3, 3, 3) < 9).astype(np.uint8))
    space = volume_space(mask, [bold])
    assert space.n_targets == 9 == common_mask([mask], bold).n_targets
    assert read_recording(bold, "r", "01", space=space).values.shape == (30, 9)
    assert space.with_regions({"a": mask}).regions["a"].sum() == 9
    assert "m" in find_region_masks(str(tmp_path))
    (path,) = space.write(np.arange(9.0), str(tmp_path / "out"))
    assert path.name == "out.nii.gz"
    (tmp_path / "l.tsv").write_text("index\tname\n1\ta\n")
    assert read_labels(str(tmp_path / "l.tsv")) == {1: "a"}


def test_the_users_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    (tmp_path / "w.tsv").write_text("word\tonset\tduration\nHello\t1\t.5\nyou.\t2\t.5\n")
    assert len(read_story({"run-1": "~/w.tsv"})) == 2


def test_a_model_and_a_store(story: Story, gpt2_folder: Path, tmp_path: Path) -> None:
    model = load_model(gpt2_folder)
    assert model.name == gpt2_folder.name
    layers = extract(story, model, layers=[1], store=str(tmp_path / "kept"))
    again = extract(story, model, layers=[1], store=Store(tmp_path / "kept"))
    name = f"{model.name}/layer-01"
    np.testing.assert_array_equal(layers[name].values, again[name].values)
    assert any((tmp_path / "kept").iterdir())


def test_a_study_and_its_results(planted_corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("langcortex.report.html.draw_pictures", lambda results: [])
    study = str(planted_corpus(tmp_path, ("01",), runs=3))
    results = run_study(read_study(study, ["models=[]", "protocol.n_nulls=0", "compare.region=brain"]))
    assert write_results(results, str(tmp_path / "out")) == tmp_path / "out" / "report.html"
    assert (tmp_path / "out" / "scores.tsv").is_file()
    with pytest.raises(SettingsError, match="does not exist"):
        read_study("no/study.toml")


def test_a_space_keeps_text_of_columns_as_columns() -> None:
    space = Space("columns", np.array(["a", "b"])).with_regions({"one": ["a"]})
    assert space.regions["one"].tolist() == [True, False]
