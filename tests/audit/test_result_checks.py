"""Findings about results: penalties at the edges of their grid, scores too good to be true, ceilings that are too high."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from langcortex.audit import Audit, Finding, audit_ceiling, audit_results, penalties_at_edge
from langcortex.encoding.protocol import Protocol
from langcortex.errors import FitError
from langcortex.results.results import COLUMNS, Results
from reference.noise_ceiling import leave_one_out_ceiling


def named(audit: Audit, words: str) -> Finding:
    (found,) = [f for f in audit.findings if words in f.what]
    assert found.how_bad
    assert found.fix
    return found


def silent(audit: Audit, words: str) -> bool:
    return not any(words in f.what for f in audit.findings)


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
    assert "inter_subject_ceiling" in found.fix


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
    assert abs(np.mean(leave_one_out_ceiling(noise[:10], rng).value)) < 0.03


def test_ceilings_that_do_not_fit_are_refused(brains: np.ndarray) -> None:
    with pytest.raises(FitError, match="responses \\(n_subjects, n_rows, n_targets\\)"):
        audit_ceiling(brains[:, :5], brains, NAMES)
    with pytest.raises(FitError, match="too few to tell 7 subjects apart"):
        audit_ceiling(brains[:, :2].mean(axis=0), brains[:, :2], NAMES)
