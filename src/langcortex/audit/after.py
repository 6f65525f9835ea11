"""What only a fit can show: penalties at the edge of their grid, scores too good to be true."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from langcortex.audit.findings import Audit, Finding, sorted_audit
from langcortex.protocol import Protocol
from langcortex.results import Results

TOO_GOOD = (
    0.15  # whole-brain mean r of one person; published ones are .07 to .13 (Le Petit Prince, single subjects)
)
WHOLE = 1000  # targets from which a mean is over a whole brain


def audit_results(results: Results, penalties: Mapping[str, np.ndarray] | None = None) -> Audit:
    """Look for what only a fit can show.

    Parameters
    ----------
    results : of a study
    penalties : feature space → penalties chosen, of any shape, NaN where none was (`langcortex.encoding.Encoding`)

    Returns
    -------
    Audit: penalties at the edge of the grid, scores too good for one person, a best layer picked on its scores
    """
    found: list[Finding] = []
    for name, chosen in (penalties or {}).items():
        found += _of_edges(name, chosen, results.protocol)
    found += _of_scores(results)
    found += _of_best_layers(results)
    if 0 < results.protocol.n_nulls < 19:
        found.append(
            Finding("note", "No p can reach .05.", f"{results.protocol.n_nulls} nulls give a p of at least "
            f"{1 / (1 + results.protocol.n_nulls):.3f}.", (), "Set protocol.n_nulls to 1000.")
        )  # fmt: skip
    return sorted_audit(found)


def penalties_at_edge(chosen: np.ndarray, grid: Sequence[float]) -> tuple[float, float]:
    """Give the shares of chosen penalties that are the smallest and the largest of their grid; NaN are left out."""
    known = chosen[np.isfinite(chosen)]
    if not len(known):
        return float("nan"), float("nan")
    low, high = min(grid), max(grid)
    return float(np.isclose(known, low, rtol=1e-5).mean()), float(np.isclose(known, high, rtol=1e-5).mean())


def _of_edges(name: str, chosen: np.ndarray, protocol: Protocol) -> Iterator[Finding]:
    if len(protocol.penalties) < 2:
        return
    low, high = penalties_at_edge(chosen, protocol.penalties)
    edges = (("smallest", low, 0.05, "smaller", "risk"), ("largest", high, 0.5, "larger", "note"))
    for which, share, most, other, level in edges:
        if share > most:
            yield Finding(
                level,
                f"'{name}': many targets take the {which} penalty of the grid.",
                f"{share:.0%} of them do"
                + ("; those that nothing predicts take the largest." if which == "largest" else "."),
                (),
                f"Add {other} penalties to protocol.penalties.",
            )


def _of_scores(results: Results) -> Iterator[Finding]:
    if results.protocol.name == "replication-2025":
        yield Finding(
            "leak",
            "The scores are of the preset 'replication-2025'.",
            "Noise gets an r of .15 to .75 from it.",
            (),
            "Hold them against langcortex audit STUDY.toml --null 20.",
        )
        return
    table, people = results.scores, results.counts.get("subjects", {})
    table = table[(table.region == "brain") & (table.run == "all") & (table.metric == "r")]
    for (subject, model), part in table[table.model.isin(results.models)].groupby(["subject", "model"]):
        n = people.get(subject, {}).get("targets", 0)
        if subject != "average" and n >= WHOLE and part.value.max() > TOO_GOOD:
            yield Finding(
                "risk",
                f"{model} predicts the whole brain of '{subject}' better than is known of one person.",
                f"Mean r is {part.value.max():.3f} over {n:,} targets; published ones of single subjects are .07 to .13.",
                (str(subject),),
                "Look for leaks: langcortex audit STUDY.toml --null 20 says what noise gets.",
            )


def _of_best_layers(results: Results) -> Iterator[Finding]:
    table = results.scores
    table = table[
        (table.region == results.region) & (table.run == "all") & (table.metric == "r_chosen") & (table.subject != "average")
    ]  # fmt: skip
    for model in results.models:
        best = results.curve(model).mean(axis=0).max()
        chosen = table[table.model == model].value.mean()
        if best - chosen > 0.01:
            yield Finding(
                "note",
                f"{model}: the best layer is picked on the scores it has.",
                f"Its r is {best:.3f}; that of the layer chosen in training {chosen:.3f}.",
                (),
                "Report the layer chosen in training.",
            )
