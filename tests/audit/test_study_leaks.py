"""The audit of a study: every known leak is named with its size and its fix, and a rigorous study has none."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from langcortex.audit import Audit, Finding, audit_study
from langcortex.audit.rows import StudyRows, recipe_units
from langcortex.audit.study_leaks import (
    _fold_findings,
    _protocol_findings,
    _shift_findings,
    _text_findings,
)
from langcortex.encoding.protocol import REPLICATION_LEAKS, Fold, Protocol
from langcortex.stimulus.story import Story, Units
from langcortex.study.corpus import open_corpus
from langcortex.study.settings_file import read_study

Corpus = Callable[..., Path]
MakeRows = Callable[..., StudyRows]


@pytest.fixture(scope="module")
def study_file(planted_corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return planted_corpus(tmp_path_factory.mktemp("audited"), ("01",))


@pytest.fixture(scope="module")
def recipe(study_file: Path, with_recipe: Callable[[Path], Path]) -> Path:
    return with_recipe(study_file)


def audited(path: Path, *changes: str) -> Audit:
    return audit_study(read_study(path, changes))


def named(audit: Audit, words: str) -> Finding:
    (found,) = [f for f in audit.findings if words in f.what]
    assert found.how_bad
    assert found.fix
    return found


def silent(audit: Audit, words: str) -> bool:
    return not any(words in f.what for f in audit.findings)


def test_a_rigorous_study_has_no_leak(study_file: Path) -> None:
    found = audited(study_file)
    assert found.leaks == ()
    assert not any("scans" in f.what for f in found.findings)


@pytest.mark.parametrize(
    "changes",
    [("design.rows=scans",), ("design.rows=words",), ("design.rows=scans", "design.response=fir"), ("protocol.test_runs=['run-4']",),
     ("protocol.folds=2",)],
)  # fmt: skip
def test_no_way_to_make_rows_or_folds_of_whole_runs_leaks(study_file: Path, changes: tuple[str, ...]) -> None:
    assert audited(study_file, *changes).leaks == ()


def test_no_model_is_loaded_and_no_recording_read(study_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("langcortex.datasets.corpus.read_recording", None)
    monkeypatch.setattr("langcortex.study.feature_spaces.load_model", None)
    assert audited(study_file, "models.0.source=/no/such/model").leaks == ()


def test_the_published_recipe_is_named_cause_by_cause(
    study_file: Path, with_recipe: Callable[[Path], Path]
) -> None:
    found = audited(with_recipe(study_file), "protocol.row_shift=true")
    told = [f.what for f in found.findings]
    for leak in REPLICATION_LEAKS:
        assert leak in told
    assert {REPLICATION_LEAKS[i] for i in (0, 1, 2, 3)} <= {f.what for f in found.leaks}
    assert "24 of 24 targets are kept" in named(found, "Voxels are chosen").how_bad
    folds = named(found, "Folds are shuffled")
    assert folds.where[0].startswith("run-1/sentence-")
    assert float(folds.how_bad.split("%")[0]) > 50
    assert any("freed of its mean" in what for what in told)
    assert any("drifts are left in" in what for what in told)
    assert [f.level for f in found.findings] == sorted(
        (f.level for f in found.findings), key=("leak", "risk", "note").index
    )
    assert all(f.how_bad and f.fix for f in found.findings)


def test_one_model_is_compared_with_none(study_file: Path, with_recipe: Callable[[Path], Path]) -> None:
    study = read_study(with_recipe(study_file))
    found = audit_study(study.model_copy(update={"models": study.models[:1]}))
    assert not any("not paired" in f.what for f in found.findings)


def test_a_single_run_that_is_cut_is_a_risk_that_a_wide_gap_lessens(
    planted_corpus: Corpus, tmp_path: Path
) -> None:
    path = planted_corpus(tmp_path, ("01",), runs=1)
    near = audited(path, "protocol.gap=0", "protocol.folds=3")
    assert near.leaks == ()
    cut = named(near, "'run-1' is cut")
    assert cut.level == "risk"
    assert "as close as" in cut.how_bad
    assert named(near, "as a whole, before it is cut").level == "risk"
    assert named(audited(path, "protocol.gap=6", "protocol.folds=3"), "'run-1' is cut").level == "note"
    assert named(near, "have few rows").level == "risk"


def test_confounds_that_stand_nowhere_are_risks_and_beside_the_models_notes(study_file: Path) -> None:
    assert named(audited(study_file), "'word_count' is not").level == "risk"
    beside = named(audited(study_file, 'features.controls=["duration","word_count"]'), "'word_count' is not")
    assert beside.level == "note"
    summed = audited(study_file, 'features.controls=["duration","word_count"]', "features.pool=sum")
    assert named(summed, "'word_count' is not").level == "risk"
    both = audited(study_file, 'protocol.confounds=["duration","word_count"]')
    assert not any("is not regressed out" in f.what for f in both.findings)
    neither = audited(study_file, "protocol.confounds=[]", "features.controls=[]")
    assert {f.level for f in neither.findings if "is not regressed out" in f.what} == {"risk"}
    assert "protocol.confounds" in named(neither, "'duration' is not").fix


def test_choices_that_touch_test_rows_are_told(study_file: Path) -> None:
    assert named(audited(study_file, "protocol.standardise=run"), "scaled by that run's own").level == "risk"
    assert (
        named(
            audited(study_file, "protocol.nested_axes=false"), "share scales and principal components"
        ).level
        == "note"
    )
    assert named(audited(study_file, "recording.high_pass=0"), "drifts are left in").level == "risk"
    one = audited(study_file, "protocol.test_runs=['run-2']")
    assert "of 'run-2'" in named(one, "There is one test segment").how_bad


def test_untrained_twins_are_missed_where_there_are_none(study_file: Path) -> None:
    assert "llama, gpt2" in named(audited(study_file), "no untrained twin").what
    with_twin = audited(study_file, "models.0.untrained=2", "models.1.untrained=2")
    assert not any("no untrained twin" in f.what for f in with_twin.findings)


def test_rows_that_share_a_scan_across_a_fold_are_counted(rows: MakeRows) -> None:
    """Rows 1 and 3 are tested: row 1 shares scan 2 with row 0; row 3 shares none."""
    r = rows(["a"] * 5, [0, 2, 4, 8, 10], [2, 3, 6, 9, 11], [([0, 2, 4], [1, 3])])
    shares, hit = r.overlaps()
    assert shares == [0.5]
    assert hit.tolist() == [False, True, False, False, False]
    assert r.neighbours() == 0.25
    (found,) = _fold_findings(r, Protocol())
    assert found.level == "leak"
    assert found.how_bad.startswith("50.0% of test rows")
    assert found.where == ("a/sentence-001",)


def test_the_same_scan_of_another_run_is_another_scan(rows: MakeRows) -> None:
    r = rows(["a", "a", "b", "b"], [0, 2, 0, 2], [1, 3, 1, 3], [([0, 1], [2, 3]), ([2, 3], [0, 1])])
    assert not r.overlaps()[1].any()
    assert r.cut_runs() == []
    assert list(_fold_findings(r, Protocol())) == []


def test_the_time_between_training_and_test_rows_is_told(rows: MakeRows) -> None:
    """Scans 0–1 are learnt from and 5–6 tested on: 2, 3 and 4 lie between them, 6 s."""
    r = rows(["a", "a"], [0, 5], [1, 6], [([0], [1])])
    assert r.seconds_apart() == 6.0
    (found,) = _fold_findings(r, Protocol())
    assert found.level == "risk"
    (far,) = _fold_findings(rows(["a", "a"], [0, 9], [1, 10], [([0], [1])]), Protocol())
    assert far.level == "note"


def test_rows_without_a_clock_are_no_seconds_apart(rows: MakeRows) -> None:
    r = dataclasses.replace(rows(["a", "a"], [0, 10000], [0, 10000], [([0], [1])]), kind="answers")
    (found,) = _fold_findings(r, Protocol())
    assert "it is unknown how far" in found.how_bad


def test_dropping_one_word_units_misaligns_five_in_six_of_le_petit_prince(little_prince: Story) -> None:
    """83.4 % of kept sentences, 4.2 away on average, 15 at most: the figures of the audit of the published pipeline."""
    (found,) = _shift_findings(recipe_units(little_prince))
    assert found.level == "leak"
    assert "70 of 2103 units" in found.how_bad
    assert "83.4% of the others" in found.how_bad
    assert "4.2 units away" in found.how_bad
    assert "15 at most" in found.how_bad


def test_units_after_a_dropped_one_meet_another_response() -> None:
    kept = {"a": np.array([True, True, False, True]), "b": np.array([True, True])}
    (found,) = _shift_findings(kept)
    assert "1 of 6 units" in found.how_bad
    assert "20.0% of the others" in found.how_bad
    assert found.where == ("a",)
    assert list(_shift_findings({"a": np.array([True, True, False])})) == []


def test_sentences_that_are_learnt_and_tested_are_counted_whatever_their_commas(rows: MakeRows) -> None:
    text = [
        "Once upon a time.",
        "once upon, a time",
        "Good day!",
        "Good day!",
        "never said but here",
        "nor this one either",
    ]
    r = rows(["a", "b", "a", "b", "a", "b"], [0, 0, 2, 2, 4, 4], [1, 1, 3, 3, 5, 5],
             [([0, 2, 4], [1, 3, 5]), ([1, 3, 5], [0, 2, 4])], text=text)  # fmt: skip
    share, first = r.repeated_text()
    assert share == 0.5  # short ones do not count
    assert set(first) == {"a/sentence-000", "b/sentence-001"}
    (found,) = _text_findings(r)
    assert found.level == "leak"


def test_repeats_inside_one_fold_do_not_count(rows: MakeRows) -> None:
    text = ["the same four words", "the same four words", "other words than these"]
    r = rows(["a", "a", "b"], [0, 2, 0], [1, 3, 1], [([0, 1], [2]), ([2], [0, 1])], text=text)
    assert list(_text_findings(r)) == []


def test_a_story_told_twice_is_a_leak_for_every_kind_of_row(planted_corpus: Corpus, tmp_path: Path) -> None:
    path = planted_corpus(tmp_path, ("01",), runs=2)
    for name in ("story/run-{}.tsv", "sub-01_run-{}.tsv"):
        (tmp_path / name.format(2)).write_bytes((tmp_path / name.format(1)).read_bytes())
    for unit in ("sentences", "words", "scans"):
        found = named(audited(path, f"design.rows={unit}"), "training and test rows alike")
        assert found.level == "leak"
        assert found.how_bad == "100.0% of test sentences are in training rows too."


def scans(reach: int, gap: int) -> StudyRows:
    """Give twenty scans of one run, each resting on the words of `reach` scans before it; the last eight are tested."""
    n = 20
    last = np.arange(n)
    ids = np.array([f"a/scan-{i:04d}" for i in range(n)])
    none = Units(ids[:0], last[:0] * 1.0, last[:0] * 1.0, ids[:0], ids[:0], last[:0])
    fold = Fold(last[: 12 - gap], last[12:])
    return StudyRows(
        ids, np.full(n, "a"), np.stack([np.maximum(last - reach, 0), last], axis=1), last * 2.0, (fold,), 2.0, "scans",
        none, {}, {},
    )  # fmt: skip


def test_delay_windows_that_reach_over_a_folds_edge_leak() -> None:
    """With delays up to 8 s at a TR of 2 s a row rests on four scans before its own: 4 of 8 test rows reach back."""
    (found,) = _fold_findings(scans(reach=4, gap=0), Protocol())
    assert found.level == "leak"
    assert "delays included" in found.what
    assert found.how_bad.startswith("50.0% of test rows")
    assert found.where[0] == "a/scan-0012"
    assert "whole runs" in found.fix


def test_delay_windows_behind_a_gap_do_not() -> None:
    (found,) = _fold_findings(scans(reach=4, gap=4), Protocol())
    assert found.level == "risk"  # a cut run is no more than that
    assert "share" not in found.what


@pytest.mark.parametrize("what", ["Targets", "The delay", "The layer", "Principal axes", "Scales", "Confounds' slopes"])  # fmt: skip
def test_whatever_a_protocol_declares_to_learn_on_test_rows_is_a_leak(what: str) -> None:
    leaky = Protocol(leaks=(f"{what} see test rows.",))
    (found,) = [f for f in _protocol_findings(leaky) if f.level == "leak"]
    assert what in found.what
    assert "rigorous" in found.fix
    assert not [f for f in _protocol_findings(Protocol()) if f.level == "leak"]


def test_the_recipe_chooses_no_layer_in_training(recipe: Path, study_file: Path) -> None:
    assert named(audited(recipe), "No layer is chosen in training").level == "risk"
    assert silent(audited(study_file), "No layer is chosen in training")


def test_the_recipe_leaves_the_count_of_words_in(recipe: Path) -> None:
    """It regresses out duration alone; controls of the study file are not fitted by it."""
    found = named(audited(recipe, 'features.controls=["word_count"]'), "'word_count' is not regressed out")
    assert found.level == "risk"
    assert "over the rows" in found.how_bad
    assert 'preset = "rigorous"' in found.fix
    assert silent(audited(recipe), "'duration' is not")


def test_place_in_the_run_is_missed_unless_something_knows_it(study_file: Path, recipe: Path) -> None:
    words = "where in its run a row is"
    assert named(audited(study_file), words).level == "note"
    assert silent(audited(study_file, 'features.controls=["duration","position"]'), words)
    assert silent(audited(study_file, 'protocol.confounds=["duration","trend"]'), words)
    assert named(audited(recipe, 'features.controls=["position"]'), words).level == "note"
    study = read_study(study_file)
    assert silent(audit_study(study.model_copy(update={"models": []})), words)


def test_motion_is_missed_unless_it_is_taken_off(study_file: Path, tmp_path: Path) -> None:
    words = "No nuisance signals"
    assert "recording.confounds" in named(audited(study_file), words).fix
    corpus = open_corpus(read_study(study_file))
    for run in range(1, 5):
        n_scans = len(corpus.recording("01", f"run-{run}").onset)
        table = pd.DataFrame({"trans_x": np.random.default_rng(run).standard_normal(n_scans)})
        table.to_csv(study_file.parent / f"motion_01_run-{run}.tsv", sep="\t", index=False)
    given = 'recording.confounds="motion_{subject}_{run}.tsv"'
    assert silent(audited(study_file, given), words)
