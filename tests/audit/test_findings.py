"""Each thing an audit knows is planted and named, with how bad, where and the mend, and is silent where it is not there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from langcortex.audit import Audit, Finding, audit_ceiling, audit_results, audit_study, sorted_audit
from langcortex.audit.rows import StudyRows
from langcortex.audit.study_leaks import _fold_findings, _protocol_findings
from langcortex.encoding.protocol import Fold, Protocol
from langcortex.errors import FitError
from langcortex.results.results import COLUMNS, Results
from langcortex.stats.noise_ceiling import leave_one_out
from langcortex.stimulus.story import Pieces
from langcortex.study.settings_file import read_study

Corpus = Callable[..., Path]


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


def results(**changes: Any) -> Results:
    table = [("01", "all", "m", layer, "brain", "r", 0.05) for layer in range(4)]
    table += [("01", "run-1", "m", layer, "brain", "r", 0.05) for layer in range(4)]
    table += [("01", "all", "m", None, "brain", "r_chosen", 0.05)]
    given: dict[str, Any] = {
        "name": "s", "settings": {}, "protocol": Protocol(), "counts": {"subjects": {"01": {"targets": 50}}},
        "models": ("m",), "controls": (), "scores": pd.DataFrame(table, columns=COLUMNS), "maps": {}, "layers": {},
        "chosen": {}, "p": {}, "delays": {}, "chosen_layers": {}, "comparisons": (), "space": None, "versions": {},
    }  # fmt: skip
    return Results(**{**given, **changes})


# delay windows


def scans(reach: int, gap: int) -> StudyRows:
    """Give twenty scans of one run, each resting on the words of `reach` scans before it; the last eight are tested."""
    n = 20
    last = np.arange(n)
    ids = np.array([f"a/scan-{i:04d}" for i in range(n)])
    none = Pieces(ids[:0], last[:0] * 1.0, last[:0] * 1.0, ids[:0], ids[:0], last[:0])
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


# what is learnt on test rows


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


# confounds


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
    for run in range(1, 5):
        table = pd.DataFrame({"trans_x": np.zeros(3)})
        table.to_csv(study_file.parent / f"motion_01_run-{run}.tsv", sep="\t", index=False)
    given = 'recording.confounds="motion_{subject}_{run}.tsv"'
    assert silent(audited(study_file, given), words)


# penalties


def test_penalties_at_the_edge_are_told_of_results_too() -> None:
    low = named(audit_results(results(edges={"m": (0.3, 0.1)})), "the smallest penalty")
    assert (low.level, low.how_bad[:3]) == ("risk", "30%")
    assert "protocol.penalties" in low.fix
    high = named(audit_results(results(edges={"m": (0.0, 0.8)})), "the largest penalty")
    assert high.level == "note"
    inside = audit_results(results(edges={"m": (0.01, 0.2)}))
    assert silent(inside, "penalty of the grid")
    one = audit_results(results(edges={"m": (1.0, 1.0)}, protocol=Protocol(penalties=(1.0,))))
    assert silent(one, "penalty of the grid")


# ceilings


@pytest.fixture
def brains(rng: np.random.Generator) -> np.ndarray:
    """Draw seven subjects who share a little: (7, 120, 9)."""
    return np.asarray(0.3 * rng.standard_normal((120, 9)) + rng.standard_normal((7, 120, 9)))


NAMES = [f"sub-{i}" for i in range(7)]


def test_a_ceiling_that_contains_the_subject_is_a_leak_for_everyone_in_it(brains: np.ndarray) -> None:
    found = named(audit_ceiling(brains.mean(axis=0), brains, NAMES), "contains the subject itself")
    assert found.level == "leak"
    assert "7 of 7 subjects" in found.how_bad
    assert "with a weight of 0.143 (others: 0.143)" in found.how_bad
    assert "1/√7 = 0.378" in found.how_bad
    assert found.where == ("sub-0", "sub-1", "sub-2")
    assert "leave_one_out" in found.fix


def test_a_ceiling_of_the_others_is_none(brains: np.ndarray) -> None:
    others = (brains.sum(axis=0) - brains) / 6
    assert audit_ceiling(others, brains, NAMES).findings == ()
    brains[0, :4] = np.nan
    assert audit_ceiling(np.nan_to_num(others), brains, NAMES).findings == ()


def test_one_subject_of_whom_the_mean_was_made_alone_is_found(brains: np.ndarray) -> None:
    """A mean that is made of the first subject, by an oversight, gives that one an r of 1."""
    others = (brains.sum(axis=0) - brains) / 6
    others[0] = brains[0]
    found = named(audit_ceiling(others, brains, NAMES), "contains the subject itself")
    assert found.where == ("sub-0",)
    assert "1 of 7 subjects" in found.how_bad


def test_noise_gets_one_over_root_n_from_such_a_ceiling_and_nothing_from_ours(
    rng: np.random.Generator,
) -> None:
    noise = rng.standard_normal((44, 400, 30))
    mean = noise.mean(axis=0)
    r = np.mean([[np.corrcoef(mean[:, v], one[:, v])[0, 1] for v in range(30)] for one in noise])
    assert r == pytest.approx(1 / np.sqrt(44), abs=0.01)  # the .151 of a published ceiling of 44 readers
    assert abs(np.mean(leave_one_out(noise[:10], rng).value)) < 0.03


def test_ceilings_that_do_not_fit_are_refused(brains: np.ndarray) -> None:
    with pytest.raises(FitError, match="responses \\(n_subjects, n_rows, n_targets\\)"):
        audit_ceiling(brains[:, :5], brains, NAMES)
    with pytest.raises(FitError, match="too few to tell 7 subjects apart"):
        audit_ceiling(brains[:, :2].mean(axis=0), brains[:, :2], NAMES)


# together


def test_findings_of_before_and_after_are_put_in_order() -> None:
    note, leak = Finding("note", "a", "b", (), "c"), Finding("leak", "d", "e", (), "f")
    assert sorted_audit([note, leak]).findings == (leak, note)
