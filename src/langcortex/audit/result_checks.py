"""Findings about results: penalties at the edges of their grid, scores too good to be true, best layers, ceilings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from langcortex.audit.findings import Audit, Finding, sorted_audit
from langcortex.encoding.protocol import PUBLISHED
from langcortex.errors import FitError
from langcortex.results.results import Results

TOO_GOOD = (
    0.15  # whole-brain mean r of one person; published ones are .07 to .13 (Le Petit Prince, single subjects)
)
WHOLE_BRAIN = 1000  # targets; from so many on, a mean is over the whole brain


def audit_results(results: Results, penalties: Mapping[str, np.ndarray] | None = None) -> Audit:
    """Audit the results of a study for what only a fit can show.

    Parameters
    ----------
    results : of a study
    penalties : feature space → chosen penalties of any shape, NaN where there is none
        (`langcortex.encoding.scores.Encoding`), besides those of each model in the results

    Returns
    -------
    Audit: penalties at the edges of the grid, scores too good for one person, a best layer picked on its scores
    """
    findings: list[Finding] = []
    edges = {n: penalties_at_edge(p, results.protocol.penalties) for n, p in (penalties or {}).items()}
    for name, (low, high) in {**results.edges, **edges}.items():
        if len(results.protocol.penalties) > 1:
            findings += _edge_findings(name, low, high)
    findings += _score_findings(results)
    findings += _best_layer_findings(results)
    if 0 < results.protocol.n_nulls < 19:
        findings.append(
            Finding("note", "No p can reach .05.", f"{results.protocol.n_nulls} nulls give a p of at least "
            f"{1 / (1 + results.protocol.n_nulls):.3f}.", (), "Set protocol.n_nulls to 1000.")
        )  # fmt: skip
    return sorted_audit(findings)


def penalties_at_edge(chosen: np.ndarray, grid: Sequence[float]) -> tuple[float, float]:
    """Return the shares of chosen penalties that are the smallest and the largest of their grid; NaN are left out."""
    defined = chosen[np.isfinite(chosen)]
    if not len(defined):
        return float("nan"), float("nan")
    low, high = min(grid), max(grid)
    return float(np.isclose(defined, low, rtol=1e-5).mean()), float(
        np.isclose(defined, high, rtol=1e-5).mean()
    )


def audit_ceiling(reference: np.ndarray, responses: np.ndarray, subjects: Sequence[str]) -> Audit:
    """Audit whether a noise ceiling between subjects contains the subject itself.

    The reference of each subject is written as a weighted sum of all subjects' responses, by least squares over
    rows and targets: a subject's own weight is 0 in a mean of the others, and 1/n in a mean of everyone.

    Parameters
    ----------
    reference : (n_rows, n_targets) with which all subjects are correlated, or (n_subjects, n_rows, n_targets), one per subject
    responses : (n_subjects, n_rows, n_targets) of the ceiling; rows that are NaN anywhere are left out
    subjects : (n_subjects,) names

    Returns
    -------
    Audit: a leak where a subject's own weight is more than half of the mean weight of the others

    Raises
    ------
    FitError : shapes that do not fit, or too few values to tell the weights apart

    Notes
    -----
    `langcortex.stats.noise_ceiling` leaves the subject out. In a self-inclusive ceiling noise alone gets about 1/√n.
    """
    n = len(responses)
    references = np.broadcast_to(reference, responses.shape) if reference.ndim == 2 else reference
    if references.shape != responses.shape or len(subjects) != n or n < 2:
        raise FitError(
            f"A ceiling of {len(subjects)} subjects needs responses (n_subjects, n_rows, n_targets) and a reference of the same rows and "
            f"targets; not {responses.shape} and {reference.shape}."
        )
    x = responses.reshape(n, -1).T.astype(np.float64)
    y = references.reshape(n, -1).T.astype(np.float64)
    defined = np.isfinite(x).all(axis=1) & np.isfinite(y).all(axis=1)
    if defined.sum() < 3 * n:
        raise FitError(
            f"{defined.sum()} values without gaps are too few to tell {n} subjects apart. Give more rows."
        )
    x, y = x[defined], y[defined]
    # column k: the weight of every subject in the reference of subject k
    weight = np.linalg.lstsq(x - x.mean(axis=0), y - y.mean(axis=0), rcond=None)[0]
    self_weight = np.diag(weight)
    mean_weight = (weight.sum(axis=0) - self_weight) / (n - 1)  # of the other subjects
    inside = np.flatnonzero(self_weight > np.maximum(mean_weight, 0.0) / 2 + 1e-9)
    if not len(inside):
        return Audit(())
    finding = Finding(
        "leak",
        "The noise ceiling of a subject contains the subject itself.",
        f"The references of {len(inside)} of {n} subjects contain themselves, with a weight of {self_weight[inside].mean():.3f} (others: {mean_weight[inside].mean():.3f}). "
        f"Noise alone gets a ceiling of about 1/√{n} = {1 / np.sqrt(n):.3f}.",
        tuple(str(subjects[i]) for i in inside[:3]),
        "Leave the subject out: langcortex.stats.noise_ceiling.inter_subject_ceiling.",
    )
    return Audit((finding,))


def _edge_findings(name: str, low: float, high: float) -> Iterator[Finding]:
    """Find a grid of penalties that is too narrow for many targets."""
    edges = (("smallest", low, 0.05, "smaller", "risk"), ("largest", high, 0.5, "larger", "note"))
    for edge, share, most, direction, level in edges:
        if share > most:
            yield Finding(
                level,
                f"'{name}': many targets have the {edge} penalty of the grid.",
                f"{share:.0%} of them do"
                + ("; unpredicted targets have the largest." if edge == "largest" else "."),
                (),
                f"Add {direction} penalties to protocol.penalties.",
            )


def _score_findings(results: Results) -> Iterator[Finding]:
    if results.protocol.is_published:
        yield Finding(
            "leak",
            f"The scores are of the preset '{PUBLISHED}'.",
            "Noise gets an r of .15 to .75 from it.",
            (),
            "Compare them with langcortex audit STUDY.toml --null 20.",
        )
        return
    table, subjects = results.scores, results.counts.get("subjects", {})
    table = table[(table.region == "brain") & (table.run == "all") & (table.metric == "r")]
    for (subject, model), part in table[table.model.isin(results.models)].groupby(["subject", "model"]):
        n = subjects.get(subject, {}).get("targets", 0)
        if subject != "average" and n >= WHOLE_BRAIN and part.value.max() > TOO_GOOD:
            yield Finding(
                "risk",
                f"{model} predicts the whole brain of '{subject}' better than any published single subject.",
                f"Mean r is {part.value.max():.3f} over {n:,} targets; published single subjects have .07 to .13.",
                (str(subject),),
                "Look for leaks: langcortex audit STUDY.toml --null 20 computes what noise gets.",
            )


def _best_layer_findings(results: Results) -> Iterator[Finding]:
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
