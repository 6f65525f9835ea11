"""The audit: every known leak is named with its size, and a rigorous study has none."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from langcortex.audit import Audit, Finding, audit_results, audit_study, penalties_at_edge
from langcortex.audit.rows import StudyRows, _recipe_rows, read_headers, recipe_units, study_rows
from langcortex.audit.study_leaks import _fold_findings, _shift_findings, _text_findings
from langcortex.brain.recording import Recording
from langcortex.brain.space import Space
from langcortex.design.design import Design
from langcortex.encoding.protocol import REPLICATION_LEAKS, Fold, Protocol, outer_folds
from langcortex.errors import FitError
from langcortex.results.results import COLUMNS, Results
from langcortex.stimulus.story import Pieces, Story, read_story
from langcortex.study.corpus import open_corpus, read_words
from langcortex.study.settings_file import read_study
from langcortex.study.subject import subject_story

Corpus = Callable[..., Path]


@pytest.fixture(scope="module")
def study_file(planted_corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return planted_corpus(tmp_path_factory.mktemp("audited"), ("01",))


def audited(path: Path, *changes: str) -> Audit:
    return audit_study(read_study(path, changes))


def named(audit: Audit, words: str) -> Finding:
    (found,) = [f for f in audit.findings if words in f.what]
    return found


def rows(
    run: list[str], first: list[int], last: list[int], folds: list[tuple[list[int], list[int]]], **given: Any
) -> StudyRows:
    n = len(run)
    ids = np.array([f"{r}/sentence-{i:03d}" for i, r in enumerate(run)])
    text = given.pop("text", [f"only {i} says just this" for i in range(n)])
    sentences = Pieces(ids, np.arange(n) * 3.0, np.full(n, 3.0), np.array(run), np.array(text), np.full(n, 4))
    split = tuple(Fold(np.array(a), np.array(b)) for a, b in folds)
    return StudyRows(
        ids, np.array(run), np.stack([first, last], axis=1), np.arange(n) * 3.0, split, 2.0, "text",
        sentences, {}, {}, **given,
    )  # fmt: skip


# whole studies


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


def test_rows_are_those_the_study_fits(study_file: Path) -> None:
    """Headers give the same rows, scans and folds as the recordings themselves."""
    study = read_study(study_file, ["recording.stimulus_onset=3.0"])
    corpus, protocol = open_corpus(study), study.to_protocol()
    story, _ = read_words(study, corpus)
    pieces = subject_story(study, corpus, story, "01")
    quick = study_rows(study, protocol, corpus, story, pieces, "01")
    whole = [corpus.recording("01", run) for run in corpus.runs("01")]
    from langcortex.study.subject import align_subject

    design: Design = align_subject(study, pieces, {}, whole)  # type: ignore[arg-type]  # recordings all
    np.testing.assert_array_equal(quick.ids, design.ids)
    np.testing.assert_array_equal(quick.scans, design.scans)
    for fold, other in zip(quick.folds, outer_folds(design.run, design.scans, protocol), strict=True):
        np.testing.assert_array_equal(fold.test, other.test)
    for light, full in zip(read_headers(corpus, "01"), whole, strict=True):
        np.testing.assert_array_equal(light.onset, full.onset)  # type: ignore[union-attr]


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


# folds


def test_rows_that_share_a_scan_across_a_fold_are_counted() -> None:
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


def test_overlaps_agree_with_looking_at_every_pair(rng: np.random.Generator) -> None:
    for _ in range(30):
        n = 25
        run = np.sort(rng.choice(["a", "b"], n))
        first = np.concatenate([np.sort(rng.integers(0, 60, int((run == r).sum()))) for r in ("a", "b")])
        last = first + rng.integers(0, 6, n)
        test = rng.random(n) < 0.3
        if test.all() or not test.any():
            continue
        r = rows(run.tolist(), first.tolist(), last.tolist(),
                 [(np.flatnonzero(~test).tolist(), np.flatnonzero(test).tolist())])  # fmt: skip
        truth = [
            any(run[i] == run[j] and first[i] <= last[j] and first[j] <= last[i] for j in np.flatnonzero(~test))
            for i in np.flatnonzero(test)
        ]  # fmt: skip
        assert r.overlaps()[1][test].tolist() == truth


def test_the_same_scan_of_another_run_is_another_scan() -> None:
    r = rows(["a", "a", "b", "b"], [0, 2, 0, 2], [1, 3, 1, 3], [([0, 1], [2, 3]), ([2, 3], [0, 1])])
    assert not r.overlaps()[1].any()
    assert r.cut_runs() == []
    assert list(_fold_findings(r, Protocol())) == []


def test_the_time_between_training_and_test_rows_is_told() -> None:
    """Scans 0–1 are learnt from and 5–6 tested on: 2, 3 and 4 lie between them, 6 s."""
    r = rows(["a", "a"], [0, 5], [1, 6], [([0], [1])])
    assert r.seconds_apart() == 6.0
    (found,) = _fold_findings(r, Protocol())
    assert found.level == "risk"
    (far,) = _fold_findings(rows(["a", "a"], [0, 9], [1, 10], [([0], [1])]), Protocol())
    assert far.level == "note"


def test_rows_without_a_clock_are_no_seconds_apart() -> None:
    r = dataclasses.replace(rows(["a", "a"], [0, 10000], [0, 10000], [([0], [1])]), kind="answers")
    (found,) = _fold_findings(r, Protocol())
    assert "it is unknown how far" in found.how_bad


def test_of_le_petit_princes_neighbours_seven_in_ten_share_a_scan(shared_data: Path) -> None:
    """1484 of 2094 pairs, as an audit of the published pipeline counted; at the recipe's windows, TR 2 s."""
    story = little_prince(shared_data)
    sentences = story.sentences
    empty = Space("columns", np.empty(0, dtype=str))
    recordings = [
        Recording(np.empty((400, 0), np.float32), np.arange(400) * 2.0, 2.0, run, "EN057", empty)
        for run in story.runs
    ]
    shifted = _recipe_rows(story, recordings, True)  # type: ignore[arg-type]  # recordings all
    share = shifted.overlaps()[1].mean()
    assert 0.7 < share < 1
    whole = rows_of_all(sentences)
    assert round(whole.neighbours(), 3) == 0.709


def rows_of_all(s: Pieces) -> StudyRows:
    first = ((s.onset + 4.0) / 2.0).astype(int)
    last = ((s.onset + s.duration + 4.0) / 2.0).astype(int)
    scans = np.stack([first, last], axis=1)
    return StudyRows(s.ids, s.run, scans, s.onset, (), 2.0, "text", s, {}, {})


def little_prince(shared_data: Path) -> Story:
    folder = shared_data / "lpp" / "annotation" / "EN"
    files = {f"section{i}": folder / f"lppEN_section{i}.TextGrid" for i in range(1, 10)}
    return read_story(files, sentences="pauses")


# dropped units


def test_dropping_one_word_units_misaligns_five_in_six_of_le_petit_prince(shared_data: Path) -> None:
    """83.4 % of kept sentences, 4.2 away on average, 15 at most: the figures of the audit of the published pipeline."""
    (found,) = _shift_findings(recipe_units(little_prince(shared_data)))
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


def test_a_story_too_short_for_the_recipe_says_so(story: Story) -> None:
    empty = Space("columns", np.empty(0, dtype=str))
    short = Recording(np.empty((40, 0), np.float32), np.arange(40) * 2.0, 2.0, "run-1", "01", empty)
    with pytest.raises(FitError, match="needs 20 units"):
        _recipe_rows(story, [short], False)


# text


def test_sentences_that_are_learnt_and_tested_are_counted_whatever_their_commas() -> None:
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


def test_repeats_inside_one_fold_do_not_count() -> None:
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


# after the fit


def results(**changes: Any) -> Results:
    table = [
        ("01", run, "m", layer, "brain", "r", 0.02 * layer + 0.05)
        for run in ("all", "run-1", "run-2")
        for layer in range(4)
    ]
    table += [("01", "all", "m", None, "brain", "r_chosen", 0.08)]
    given: dict[str, Any] = {
        "name": "s", "settings": {}, "protocol": Protocol(), "counts": {"subjects": {"01": {"targets": 5000}}},
        "models": ("m",), "controls": (), "scores": pd.DataFrame(table, columns=COLUMNS), "maps": {}, "layers": {},
        "chosen": {}, "p": {}, "delays": {}, "chosen_layers": {}, "comparisons": (), "space": None, "versions": {},
    }  # fmt: skip
    return Results(**{**given, **changes})


def test_penalties_at_the_edge_are_counted_on_each_side() -> None:
    chosen = np.array([[1.0, 10.0, 100.0, np.nan], [1.0, 100.0, 100.0, 100.0]])
    assert penalties_at_edge(chosen, (1.0, 10.0, 100.0)) == (2 / 7, 4 / 7)
    assert np.isnan(penalties_at_edge(np.full(3, np.nan), (1.0, 2.0))).all()
    low = audit_results(results(), {"m/layer-01": np.full(10, 1e-3)})
    assert named(low, "the smallest penalty").level == "risk"
    high = audit_results(results(), {"m/layer-01": np.full(10, 1e5, dtype=np.float32)})
    assert named(high, "the largest penalty").level == "note"
    assert not any("penalty" in f.what for f in audit_results(results(), {"m": np.full(9, 10.0)}).findings)


def test_a_best_layer_above_the_chosen_one_is_noted() -> None:
    found = named(audit_results(results()), "best layer is picked")
    assert (found.level, found.how_bad) == (
        "note",
        "Its r is 0.110; that of the layer chosen in training 0.080.",
    )


def test_scores_too_good_for_one_person_are_suspected() -> None:
    scores = results().scores.assign(value=lambda t: t.value + 0.1)
    assert (
        "0.210 over 5,000 targets"
        in named(audit_results(results(scores=scores)), "better than any published").how_bad
    )
    few = {"subjects": {"01": {"targets": 12}}}
    assert not any("better" in f.what for f in audit_results(results(scores=scores, counts=few)).findings)
    assert not any("better" in f.what for f in audit_results(results()).findings)


def test_too_few_nulls_and_the_recipes_scores_are_told() -> None:
    assert "at least 0.100" in named(audit_results(results(protocol=Protocol(n_nulls=9))), "No p can").how_bad
    leaky = Protocol(name="replication-2025", n_nulls=0)
    assert named(audit_results(results(protocol=leaky)), "replication-2025").level == "leak"


def test_a_finding_is_one_line() -> None:
    finding = Finding("leak", "Rows are shared.", "All.", ("a", "b"), "Stop.")
    assert str(finding) == "Rows are shared. All. First: a, b. Fix: Stop."
    assert Audit((finding,)).as_rows()[0]["where"] == ("a", "b")
