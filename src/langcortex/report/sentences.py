"""Sentences of the report: what was found, how it was done, and whom to cite for it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from langcortex.chance import false_discovery
from langcortex.protocol import Protocol
from langcortex.report.tables import best_layer, number, people_text, pooled
from langcortex.results import Results

REFERENCES = {
    "nilearn": "Nilearn contributors. nilearn. doi:10.5281/zenodo.8397156",
    "hadidi": "Hadidi et al. (2026). Nature Communications. doi:10.1038/s41467-026-72253-7",
    "phipson": "Phipson B, Smyth GK (2010). Permutation P-values should never be zero: calculating exact P-values "
    "when permutations are randomly drawn. Statistical Applications in Genetics and Molecular Biology 9(1), 39. "
    "doi:10.2202/1544-6115.1585",
    "benjamini": "Benjamini Y, Hochberg Y (1995). Controlling the false discovery rate: a practical and powerful "
    "approach to multiple testing. Journal of the Royal Statistical Society B 57(1), 289–300. "
    "doi:10.1111/j.2517-6161.1995.tb02031.x",
    "nichols": "Nichols TE, Holmes AP (2002). Nonparametric permutation tests for functional neuroimaging: a primer "
    "with examples. Human Brain Mapping 15(1), 1–25. doi:10.1002/hbm.1058",
    "schuirmann": "Schuirmann DJ (1987). A comparison of the two one-sided tests procedure and the power approach "
    "for assessing the equivalence of average bioavailability. Journal of Pharmacokinetics and Biopharmaceutics "
    "15(6), 657–680. doi:10.1007/BF01068419",
}


def leak_line(protocol: Protocol) -> str:
    """Give the line that every figure of a leaking protocol carries; empty for others."""
    return f"protocol {protocol.name}: known to leak" if protocol.leaks else ""


def summary_sentences(results: Results) -> list[str]:
    """Tell in plain words what was done and found."""
    runs = len(set(results.scores.run) - {"all"})
    named = results.models or results.controls
    models = _listed(named)
    first = f"{models} {'were' if len(named) > 1 else 'was'} related to the responses of {people_text(results)} in {runs} run{'s' * (runs != 1)}"
    read = _what_was_read(results)
    out = [f"{first}{': ' + read if read else ''}."]
    for model in results.models:
        out += _model_sentences(results, model)
    out += [f"{c.a} and {c.b}: {c.verdict}" for c in results.comparisons]
    if results.protocol.leaks:
        out.append("The protocol is known to leak: none of these numbers says anything about the brain.")
    return out


def _what_was_read(results: Results) -> str:
    """Gather the words, sentences, rows and targets that were counted."""
    found = [
        f"{results.counts[key]:,} {key}"
        for key in ("words", "sentences", "rows")
        if isinstance(results.counts.get(key), int)
    ]
    nested = results.counts.get("subjects")
    by_subject = nested if isinstance(nested, dict) else {}
    for key in ("rows", "targets"):
        said = _range([one[key] for one in by_subject.values() if isinstance(one.get(key), int)])
        if said and not any(part.endswith(key) for part in found):
            found.append(f"{said} {key}" + (" a subject" if len(by_subject) > 1 else ""))
    if results.space is not None and not any("targets" in part for part in found):
        found.append(f"{results.space.n_targets:,} targets")
    return _listed(found)


def _range(values: list[int]) -> str:
    if not values:
        return ""
    low, high = min(values), max(values)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _model_sentences(results: Results, model: str) -> Iterator[str]:
    best = best_layer(results, model)
    if best is None:
        yield f"{model} has no defined score."
        return
    region = "the brain" if results.region == "brain" else results.region
    r = number(pooled(results, model, "r", best).get(results.region, np.nan))
    n_layers = len(results.layers[model])
    yield (
        f"{model} reaches its highest mean r over {region} at layer {best} of {n_layers} that were fitted: r\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}{r}, "
        "a description, picked on the scores it has."
    )
    chosen = pooled(results, model, "r_chosen").get(results.region)
    if chosen is not None:
        yield f"The layer chosen in training, without its held-out rows, scores r\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}{number(chosen)}."
    p = results.p.get(model)
    if p is not None:
        yield _tested(p, results.p_corrected.get(model), results.protocol.n_nulls)


def _tested(p: np.ndarray, corrected: np.ndarray | None, n_nulls: int) -> str:
    """Count the targets above chance: corrected in two ways, and before correction."""
    defined, found, small = int(np.isfinite(p).sum()), int(false_discovery(p).sum()), int((p <= 0.05).sum())
    counts = [
        f"{found:,} at a false-discovery rate of .05",
        f"{small:,} with p ≤ .05 before correction, where {0.05 * defined:,.0f} are expected by chance",
    ]
    if corrected is not None:
        counts.insert(0, f"{int((corrected <= 0.05).sum()):,} with p ≤ .05 corrected over targets")
    smallest = 1 / (1 + n_nulls)
    coarse = (
        f" With {n_nulls:,} shifts no p is below {smallest:.2g}, too coarse for a false-discovery rate over so many "
        "targets: raise protocol.n_nulls."
        if found == 0 and small and (p <= 1.001 * smallest).any()
        else ""
    )
    return (
        f"Of {defined:,} targets, that score is above circular shifts at {'; at '.join(counts)} "
        f"({len(p) - defined:,} undefined targets left out).{coarse}"
    )


def _listed(parts: Any) -> str:
    """Join with commas and "and"."""
    names = list(parts)
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 2 else names)


def methods_sentences(results: Results) -> list[str]:
    """Describe the method in paragraphs, from the protocol that was obeyed."""
    p = results.protocol
    fitted = _leaking(p) if p.leaks else " ".join(_fitting(results))
    paragraphs = [fitted, " ".join(_scoring(results)), " ".join(_testing(results))]
    return [text for text in paragraphs if text]


def _leaking(p: Protocol) -> str:
    return (
        f"The analysis followed the protocol {p.name}, which reproduces a published recipe, leaks included, and must "
        "not be used to draw conclusions. It departs from a sound analysis in these ways. "
        + " ".join(p.leaks)
    )


def _fitting(results: Results) -> Iterator[str]:
    p = results.protocol
    yield (
        "Every layer of every model was related to every target by ridge regression, and scored only on rows that were "
        f"left out. {_folds_text(p)}"
    )
    yield "What follows was learnt on the training rows of each fold alone, and anew in each inner fold."
    yield _scaling_text(p)
    if p.confounds:
        yield f"{_listed(p.confounds)} {'were' if len(p.confounds) > 1 else 'was'} regressed out of the models' features and of the responses."
    if p.pca is not None:
        yield f"The first {p.pca} principal components of the features were kept."
    yield _penalty_text(p)
    if any(results.delays.values()) and any(d for delays in results.delays.values() for d in delays):
        shared = (
            "every outer fold, shared by all models and layers" if p.delay_by == "fold" else "every target"
        )
        yield f"The delay of the response was one for {shared}; where there were candidates, it was chosen by the same inner score."
    if any(any(by.values()) for by in results.chosen_layers.values()):
        yield "The layer chosen in training is, in each outer fold, the one with the best inner score on the tenth of targets that all layers together predict best there."


def _folds_text(p: Protocol) -> str:
    if p.test_runs:
        return f"Models were fitted on all other runs and scored on {_listed(p.test_runs)}."
    outer = (
        "One run at a time was left out"
        if p.folds == "runs"
        else f"One of {p.folds} groups of neighbouring runs at a time was left out"
    )
    return (
        f"{outer}; a single run is cut into contiguous blocks, without the training rows whose scans lie within "
        f"{p.gap} scans of a held-out row's."
    )


def _scaling_text(p: Protocol) -> str:
    return {
        "training": "Features were scaled by the mean and standard deviation of the training rows.",
        "run": "Features (not responses) were scaled by the mean and standard deviation of their own run, held-out runs included.",
        "none": "Features were not scaled.",
    }[p.standardise]


def _penalty_text(p: Protocol) -> str:
    unit = "in shares of the mean eigenvalue of XᵀX, so that layers are comparable" if p.relative else "as α"
    how = "runs left out one at a time" if p.inner == "runs" else f"{p.inner} groups of runs"
    score = "R²" if p.choose_by == "r2" else "r"
    grid = (
        f"from {len(p.penalties)} values between {min(p.penalties):g} and {max(p.penalties):g} ({unit})"
        if len(p.penalties) > 1
        else f"as {p.penalties[0]:g} ({unit})"
    )
    return f"A penalty was chosen for every target {grid}, by the {score} of inner folds ({how})."


def _scoring(results: Results) -> Iterator[str]:
    metrics = set(results.scores.metric)
    pieces = "folds" if results.protocol.leaks else "held-out runs or blocks"
    yield f"r is the Pearson correlation of prediction and response, averaged over {pieces}."
    if "r2" in metrics:
        yield (
            "R² = 1 − ΣSSE/ΣSST over held-out rows, where SST is around what the training mean predicts; "
            "below 0 is worse than that mean."
        )
    if results.protocol.leaks:
        yield "The recipe enters 0 where no voxel of a fold is defined, and so do these scores."
    else:
        yield (
            "A target that is constant or without data has no score, and a constant prediction has no r: both are "
            "undefined (NaN), not 0, and every average leaves them out."
        )


def _testing(results: Results) -> Iterator[str]:
    if results.p and results.protocol.n_nulls:
        n = results.protocol.n_nulls
        yield (
            f"The layer chosen in training was tested against {n:,} circular shifts of the responses within each run, "
            "training runs included, each by a random amount between a tenth and nine tenths of its length; the weights were "
            "fitted again to every shift, with the layers, delays and penalties of the true fit. A shift keeps the "
            "autocorrelation of the responses, but for the seam where end meets beginning. p = (1 + number of shifts with a "
            f"mean r at least as large) / (1 + {n:,}) (Phipson & Smyth 2010){_corrections(results)}."
        )
    for c in results.comparisons[:1]:
        yield (
            f"Models were compared on the same {c.unit}, layer by layer: a 95 % bootstrap interval over {c.n_units} {c.unit}, "
            f"p from random signs of the {c.unit}, corrected over layers by the largest difference (Nichols & Holmes 2002), and two "
            f"one-sided t tests for a difference within ±{c.margin:g} (Schuirmann 1987)."
        )


def _corrections(results: Results) -> str:
    rate = "targets were counted at a false-discovery rate of .05 (Benjamini & Hochberg 1995)"
    if not results.p_corrected:
        return f"; {rate}"
    return (
        f"; it was corrected over targets by the largest r of each shift (Nichols & Holmes 2002), and {rate}"
    )


def references(results: Results) -> list[str]:
    """List what this study made use of."""
    used = {
        "nilearn": True,
        "hadidi": bool(results.protocol.leaks) or "r2" in set(results.scores.metric),
        "phipson": bool(results.p),
        "benjamini": bool(results.p),
        "nichols": bool(results.comparisons) or bool(results.p_corrected),
        "schuirmann": bool(results.comparisons),
    }
    software = [REFERENCES[key] for key, yes in used.items() if yes]
    if "citation" not in results.source:
        return software
    licence = f" Licence of the data: {results.source['licence']}" if "licence" in results.source else ""
    return [f"Data: {results.source['citation']}{licence}", *software]
