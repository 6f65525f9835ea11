"""What is asked of a finished study: everything is there, kept on disk, and says how it was made."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from langcortex.encoding.protocol import Protocol
from langcortex.results.files import write_tables
from langcortex.results.null_curves import FILE, null_curves_as_json
from langcortex.results.provenance import Records
from langcortex.results.results import COLUMNS, Results
from langcortex.study import inference
from langcortex.study.corpus import open_corpus
from langcortex.study.run import run_study
from langcortex.study.settings import Study
from langcortex.study.settings_file import make_study, read_study

Corpus = Callable[..., Path]
PEOPLE = tuple(f"{i:02d}" for i in range(1, 7))
SMALL = ("features.layers=[1,2]", "design.delays=[6.0]", "inference.n_resamples=300", "protocol.n_nulls=0")


@pytest.fixture(scope="module")
def planted(planted_corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six people whose eight language targets follow a model, three follow duration, and the others nothing."""
    return planted_corpus(tmp_path_factory.mktemp("six"), PEOPLE)


@pytest.fixture(scope="module")
def results(planted: Path, tmp_path_factory: pytest.TempPathFactory) -> Results:
    return run_study(read_study(planted, [f"output={tmp_path_factory.mktemp('out')}", *SMALL]))


def test_people_are_tested_at_the_layer_chosen_in_training(results: Results) -> None:
    by_name = {t.name: t for t in results.people}
    assert set(by_name) == {"llama", "gpt2", "llama − gpt2"}
    found = by_name["llama"].targets
    assert found is not None
    assert (found.p_corrected[:8] <= 0.05).all()
    assert (found.p_corrected[8:] <= 0.05).mean() <= 0.1
    np.testing.assert_array_equal(by_name["llama"].regions.value.shape, (4,))
    assert results.mixed is not None
    assert results.mixed.n_scores == 2 * 6 * 4


def test_pairs_are_compared_at_the_chosen_layers_of_the_scores(results: Results) -> None:
    (one,) = results.comparisons_chosen
    rows = results.scores[(results.scores.metric == "r_chosen") & (results.scores.run == "all")]
    mean = rows[rows.region == "language"].groupby("model").value.mean()
    assert one.effect[0] == pytest.approx(mean["llama"] - mean["gpt2"])
    assert one.p_corrected[0] <= 0.05


def test_a_ceiling_is_of_what_was_scored_without_the_confounds(
    results: Results, planted: Path, tmp_path: Path
) -> None:
    """Auditory targets follow duration: once it is removed, people share less of them than before. Silent ones share nothing."""
    assert results.shared is not None
    assert results.shared.subjects == PEOPLE
    assert set(results.shared.other_subjects.by_region) == {"brain", "language", "auditory", "silent"}
    assert results.shared.perfect_model.by_region["silent"][1] <= 0
    assert results.no_ceiling == ()
    off = ("protocol.confounds=[]", "protocol.n_nulls=0", "inference.group=false")
    before = run_study(read_study(planted, [f"output={tmp_path}", *SMALL, *off])).shared
    assert before is not None
    assert (
        before.perfect_model.by_region["auditory"][1] > results.shared.perfect_model.by_region["auditory"][2]
    )


def test_penalties_at_the_edges_are_counted(results: Results) -> None:
    for low, high in results.edges.values():
        assert 0 <= low <= 1
        assert 0.3 < high <= 1  # silent targets take the largest


def test_tables_and_maps_hold_it_all(results: Results, tmp_path: Path) -> None:
    write_tables(results, tmp_path)
    group = pd.read_csv(tmp_path / "group.tsv", sep="\t")
    assert set(group.what) == {"llama", "gpt2", "llama − gpt2", "gpt2 − llama"}
    ceilings = pd.read_csv(tmp_path / "ceilings.tsv", sep="\t")
    assert len(ceilings) == 2 * 4 * 2
    assert (ceilings.share.notna() == ceilings.refused.isna()).all()
    tests = pd.read_csv(tmp_path / "tests.tsv", sep="\t", keep_default_na=False)
    assert len(tests) == len(Records(results))
    names = {p.name for p in (tmp_path / "maps").iterdir()}
    assert {
        "llama_layer-chosen_group_stat-p.tsv",
        "llama_layer-chosen_group_stat-pfwe.tsv",
        "llama-minus-gpt2_layer-chosen_group_stat-t.tsv",
        "ceiling-perfect_stat-r.tsv",
        "llama_layer-chosen_stat-share.tsv",
    } <= names
    summary = json.loads((tmp_path / "summary.json").read_text(), parse_constant=pytest.fail)
    assert len(summary["tests"]) == len(tests)
    assert set(summary["penalties_at_edges"]) == {"llama", "gpt2"}


def test_what_nobody_asks_for_is_left_out(planted: Path, tmp_path: Path) -> None:
    off = ("inference.ceilings=false", "inference.group=false", "inference.mixed=false", "protocol.n_nulls=0")
    plain = run_study(read_study(planted, [f"output={tmp_path}", *SMALL, *off]))
    assert (plain.shared, plain.people, plain.mixed, plain.no_ceiling) == (None, (), None, ())


def test_two_people_are_too_few_for_a_ceiling_and_it_says_so(planted: Path, tmp_path: Path) -> None:
    few = 'recording.subjects=["01","02"]'
    plain = run_study(read_study(planted, [f"output={tmp_path}", *SMALL, few, "protocol.n_nulls=0"]))
    assert plain.shared is None
    assert plain.no_ceiling == (
        "There is no noise ceiling between subjects: it needs at least 3, and there are 2.",
    )


# repeats


class Repeated:
    """The planted corpus, whose last run was heard six times."""

    test_story = "run-4"
    test_runs = ("run-4",)

    def __init__(self, study: Study) -> None:
        self._corpus = open_corpus(study)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._corpus, name)

    def repeats(self, subject: str) -> np.ndarray:
        mean = self._corpus.recording(subject, "run-4").values
        noise = np.random.default_rng(1).standard_normal((6, *mean.shape))
        return 3.0 * (mean + noise - noise.mean(axis=0)) + 7.0

    def subjects(self) -> Any:
        return self._corpus.subjects()

    def story(self) -> Any:
        return self._corpus.story()

    def runs(self, subject: str) -> Any:
        return self._corpus.runs(subject)

    def recording(self, subject: str, run: str) -> Any:
        return self._corpus.recording(subject, run)


def test_a_run_heard_several_times_gets_a_ceiling_of_its_own(planted: Path, tmp_path: Path) -> None:
    rows = ("design.rows=scans", "design.response=fir", 'recording.subjects=["01"]', "protocol.n_nulls=0")
    study = read_study(planted, [f"output={tmp_path}", SMALL[0], SMALL[2], *rows, "design.delays=[6.0]"])
    found = run_study(study, corpus=Repeated(study))
    (one,) = found.repeats
    assert (one.subject, one.run, one.n_repeats) == ("01", "run-4", 6)
    value, low, high = one.ceiling.by_region["brain"]
    # signal / (signal + noise / 6), both of variance 1 before the mean: (6 · 1 − 1) / (5 · 1)
    assert low <= value <= high <= 1.2
    table = pd.DataFrame(inference_rows(found))
    assert set(table.region) == {"brain", "language", "auditory", "silent"}
    sentences = read_study(
        planted, [f"output={tmp_path}", *SMALL, 'recording.subjects=["01"]', "protocol.n_nulls=0"]
    )
    told = run_study(sentences, corpus=Repeated(sentences))
    assert told.repeats == ()
    assert any("the rows are sentences" in reason for reason in told.no_ceiling)


def inference_rows(results: Results) -> list[dict[str, Any]]:
    from langcortex.results.files import ceiling_table

    return ceiling_table(results).to_dict("records")


# curves


@pytest.fixture
def curved(tmp_path: Path) -> tuple[Study, Results]:
    """A model whose seven layers make an inverted U in eight people."""
    study = make_study(
        {"seed": 1, "models": [{"source": "m", "name": "m"}], "inference": {"n_resamples": 500}},
        folder=tmp_path,
    )
    rng = np.random.default_rng(3)
    shape = 0.05 * (1 - (np.arange(7) - 3) ** 2 / 9)
    rows = [
        (f"{s}", "all", "m", layer, "brain", "r", float(shape[layer] + 0.003 * rng.standard_normal()))
        for s in range(8)
        for layer in range(7)
    ]
    results = Results(
        name="x", settings={}, protocol=Protocol(), counts={}, models=("m",), controls=(),
        scores=pd.DataFrame(rows, columns=COLUMNS), maps={}, layers={"m": np.arange(7)}, chosen={}, p={}, delays={},
        chosen_layers={}, comparisons=(), space=None, versions={},
    )  # fmt: skip
    return study, results


def _noise(study: Study, curves: np.ndarray, layers: np.ndarray) -> None:
    study.output_folder.mkdir(exist_ok=True)
    told = {"kind": "ar", "seed": 9, **null_curves_as_json(Protocol(), "brain", {"m": layers}, {"m": curves})}
    (study.output_folder / FILE).write_text(json.dumps(told))


def test_an_inverted_u_is_found_and_held_against_what_noise_gives(curved: tuple[Study, Results]) -> None:
    study, results = curved
    ((plain,), _) = inference._layer_curves(study, results)
    assert plain.verdict.startswith("Inverted U")
    assert plain.against_noise is None
    rng = np.random.default_rng(0)
    _noise(study, 0.001 * rng.standard_normal((40, 7)), np.arange(7))
    ((quiet,), said) = inference._layer_curves(study, results)
    assert said == []
    assert quiet.verdict.startswith("Inverted U")
    assert quiet.against_noise is not None
    assert (quiet.against_noise.resampling.unit, quiet.against_noise.resampling.seed) == (
        "recordings without a story (ar)",
        "9",
    )
    _noise(study, 0.05 * rng.standard_normal((40, 7)), np.arange(7))
    ((loud,), _) = inference._layer_curves(study, results)
    assert "noise gives such a curve" in loud.verdict


def test_noise_of_other_layers_is_not_used(curved: tuple[Study, Results]) -> None:
    study, results = curved
    _noise(study, np.zeros((20, 6)), np.arange(6))
    ((one,), said) = inference._layer_curves(study, results)
    assert one.against_noise is None
    assert "other layers of m" in said[0]


def test_few_units_or_layers_have_no_curve(curved: tuple[Study, Results]) -> None:
    study, results = curved
    table = results.scores
    assert (
        inference._layer_curves(study, dataclasses.replace(results, scores=table[table.layer < 5]))[0] == ()
    )
    assert (
        inference._layer_curves(study, dataclasses.replace(results, scores=table[table.subject < "2"]))[0]
        == ()
    )
