"""Sentences of the report: what was found, how it was done, and whom to cite for it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from langcortex.encoding.protocol import Protocol
from langcortex.report.tables import best_layer, number, people_text, pooled
from langcortex.results.provenance import Records, record_of_comparison
from langcortex.results.results import Results
from langcortex.stats.comparison import Comparison
from langcortex.stats.null_counts import false_discovery

SHAPE = ("peak", "flat", "lines", "noise")
REFERENCES = {
    "nilearn": "Nilearn contributors. nilearn. doi:10.5281/zenodo.8397156",
    "dupre": "Dupré la Tour T, Eickenberg M, Nunez-Elizalde AO, Gallant JL (2022). Feature-space selection with banded ridge "
    "regression. NeuroImage 264, 119728. doi:10.1016/j.neuroimage.2022.119728",
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
    "rouder": "Rouder JN, Speckman PL, Sun D, Morey RD, Iverson G (2009). Bayesian t tests for accepting and rejecting the null "
    "hypothesis. Psychonomic Bulletin & Review 16(2), 225–237. doi:10.3758/PBR.16.2.225",
    "nadeau": "Nadeau C, Bengio Y (2003). Inference for the generalization error. Machine Learning 52, 239–281. "
    "doi:10.1023/A:1024068626366",
    "holm": "Holm S (1979). A simple sequentially rejective multiple test procedure. Scandinavian Journal of Statistics 6(2), 65–70. "
    "https://www.jstor.org/stable/4615733",
    "simonsohn": "Simonsohn U (2018). Two lines: a valid alternative to the invalid testing of U-shaped relationships with quadratic "
    "regressions. Advances in Methods and Practices in Psychological Science 1(4), 538–555. doi:10.1177/2515245918805755",
    "winkler": "Winkler AM, Ridgway GR, Webster MA, Smith SM, Nichols TE (2014). Permutation inference for the general linear model. "
    "NeuroImage 92, 381–397. doi:10.1016/j.neuroimage.2014.01.060",
    "smith": "Smith SM, Nichols TE (2009). Threshold-free cluster enhancement: addressing problems of smoothing, threshold dependence "
    "and localisation in cluster inference. NeuroImage 44(1), 83–98. doi:10.1016/j.neuroimage.2008.03.061",
    "barr": "Barr DJ, Levy R, Scheepers C, Tily HJ (2013). Random effects structure for confirmatory hypothesis testing: keep it "
    "maximal. Journal of Memory and Language 68(3), 255–278. doi:10.1016/j.jml.2012.11.001",
    "nastase": "Nastase SA, Gazzola V, Hasson U, Keysers C (2019). Measuring shared responses across subjects using intersubject "
    "correlation. Social Cognitive and Affective Neuroscience 14(6), 667–685. doi:10.1093/scan/nsz037",
    "chen": "Chen G, Shin YW, Taylor PA, et al. (2016). Untangling the relatedness among correlations, part I: nonparametric approaches "
    "to inter-subject correlation analysis at the group level. NeuroImage 142, 248–259. doi:10.1016/j.neuroimage.2016.05.023",
    "schoppe": "Schoppe O, Harper NS, Willmore BDB, King AJ, Schnupp JWH (2016). Measuring the performance of neural models. Frontiers "
    "in Computational Neuroscience 10, 10. doi:10.3389/fncom.2016.00010",
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
    records = Records(results)
    for model in results.models:
        out.append(" ".join(_model_sentences(results, model, records)))
    out += [f"{c.a} and {c.b}: {c.verdict}{_cited(records, c, '')}" for c in results.comparisons]
    said = {c.verdict for c in results.comparisons}
    out += [
        f"{c.a} and {c.b}: {c.verdict}{_cited(records, c, 'chosen ')}"
        for c in results.comparisons_chosen
        if c.verdict not in said
    ]
    out += [f"{c.verdict}{records.cite(*((what, c.name) for what in SHAPE))}" for c in results.curves]
    if results.protocol.leaks:
        out.append("The protocol is known to leak: none of these numbers says anything about the brain.")
    return out


def _cited(records: Records, c: Comparison, kind: str) -> str:
    return records.cite(
        (f"{kind}difference", record_of_comparison(c)), (f"{kind}equivalence", record_of_comparison(c))
    )


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


def _model_sentences(results: Results, model: str, records: Records) -> Iterator[str]:
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
        yield _tested(p, results.p_corrected.get(model), results.protocol.n_nulls) + records.cite(("p", ""))


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
        f" With {n_nulls:,} nulls no p is below {smallest:.2g}, too coarse for a false-discovery rate over so many "
        "targets: raise protocol.n_nulls."
        if found == 0 and small and (p <= 1.001 * smallest).any()
        else ""
    )
    return (
        f"Of {defined:,} targets, that score is above chance at {'; at '.join(counts)} "
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
    if results.regimes:
        used = _listed(
            sorted({f"'{regime}'" for found in results.regimes.values() for regime in found.split(", ")})
        )
        yield f"Predictions were scored by the engine's regime {used}; all regimes give the same scores but for rounding."
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
    records = Records(results)
    if results.p and results.protocol.n_nulls:
        n = results.protocol.n_nulls
        yield (
            f"The layer chosen in training was tested against {n:,} nulls. {_null_text(results.protocol)} p = (1 + number of nulls with a "
            f"mean r at least as large) / (1 + {n:,}) (Phipson & Smyth 2010){_corrections(results)}{records.cite(('p', ''))}."
        )
    for c in results.comparisons[:1]:
        largest = c.p_resampling.correction if c.p_resampling else "the largest difference over layers"
        yield (
            f"Models were compared on the same {c.unit}, layer by layer: a 95 % bootstrap interval over {c.n_units} {c.unit}, "
            f"p from signs of the {c.unit}, corrected over layers by the {largest.removeprefix('the ')} (Nichols & Holmes 2002), two "
            f"one-sided t tests for a difference within ±{c.margin:g} (Schuirmann 1987), and the Bayes factor of a t test (Rouder et al. "
            f"2009){records.cite(*((k, record_of_comparison(c)) for k in ('difference', 'interval', 'equivalence')))}."
        )
    yield from _more_tests(results, records)


def _null_text(p: Protocol) -> str:
    how = {
        "shift": "In each, the responses of every run, training runs included, are turned in a circle by a random amount between a "
        "tenth and nine tenths of its length. A shift keeps the autocorrelation of the responses, but for the seam where end meets "
        "beginning.",
        "block": f"In each, blocks of {p.null_block} neighbouring rows of every run, training runs included, are shuffled.",
        "phase": "In each, every frequency of the responses of every run, training runs included, gets a random phase, the same for "
        "all targets.",
    }[p.null]
    penalties = "layers, delays and penalties" if p.null_penalties == "kept" else "layers and delays"
    anew = "" if p.null_penalties == "kept" else " Penalties were chosen again by inner folds."
    return f"{how} The weights were fitted again to every null, with the {penalties} of the true fit.{anew}"


def _over_runs(results: Results) -> bool:
    """Say whether runs of one subject were what a test is over."""
    return "runs" in {c.unit for c in results.comparisons} | {c.unit for c in results.curves}


def _more_tests(results: Results, records: Records) -> Iterator[str]:
    if _over_runs(results):
        yield "Runs share training data, so their spread was widened (Nadeau & Bengio 2003)."
    if results.curves:
        yield (
            "The mean curve over layers was tested against a flat one, its peak was given a 95 % bootstrap interval, and two lines "
            "were fitted, up to a split and from it on (Simonsohn 2018)"
            f"{records.cite(*((what, c.name) for c in results.curves for what in SHAPE))}."
        )
    if results.people:
        yield "Scores were tested over subjects by signs of whole subjects and the largest t (Winkler et al. 2014)."
    if any(t.clusters is not None for t in results.people):
        yield "Neighbouring targets supported each other by threshold-free cluster enhancement (Smith & Nichols 2009)."
    if results.mixed is not None:
        yield "A mixed model let differences vary from subject to subject (Barr et al. 2013)."
    if results.shared is not None:
        yield "Noise ceilings leave out the subject they are held against (Nastase et al. 2019) and draw subjects in pairs (Chen et al. 2016)."
    if results.repeats:
        yield "The ceiling of a repeated run is the normalised correlation's CC_max (Schoppe et al. 2016)."


def _corrections(results: Results) -> str:
    rate = "targets were counted at a false-discovery rate of .05 (Benjamini & Hochberg 1995)"
    if not results.p_corrected:
        return f"; {rate}"
    return (
        f"; it was corrected over targets by the largest r of each null (Nichols & Holmes 2002), and {rate}"
    )


def references(results: Results) -> list[str]:
    """List what this study made use of."""
    used = {
        "nilearn": True,
        "hadidi": bool(results.protocol.leaks)
        or "r2" in set(results.scores.metric)
        or bool(results.partitions),
        "phipson": bool(results.p),
        "benjamini": bool(results.p) or bool(results.people),
        "nichols": bool(results.comparisons) or bool(results.p_corrected) or bool(results.people),
        "schuirmann": bool(results.comparisons),
        "rouder": bool(results.comparisons),
        "nadeau": _over_runs(results),
        "holm": len(results.comparisons_chosen) > 1,
        "simonsohn": bool(results.curves),
        "winkler": bool(results.people),
        "smith": any(t.clusters is not None for t in results.people),
        "barr": results.mixed is not None,
        "nastase": results.shared is not None,
        "chen": results.shared is not None,
        "schoppe": bool(results.repeats),
        "dupre": bool(results.partitions),
    }
    software = [REFERENCES[key] for key, yes in used.items() if yes]
    if "citation" not in results.source:
        return software
    licence = f" Licence of the data: {results.source['licence']}" if "licence" in results.source else ""
    return [f"Data: {results.source['citation']}{licence}", *software]
