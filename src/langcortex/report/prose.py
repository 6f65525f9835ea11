"""Sentences of the report: the summary, the methods and the references."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from langcortex.encoding.protocol import Protocol
from langcortex.report.tables import find_best_layer, format_n_subjects, format_number, pooled_scores
from langcortex.results.provenance import Records, record_of_comparison
from langcortex.results.results import Results
from langcortex.stats.comparison import Comparison
from langcortex.stats.null_counts import false_discovery

CURVE_RECORDS = ("peak", "flat", "lines", "noise")
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


def format_leak_line(protocol: Protocol) -> str:
    """Return the line at the foot of every figure of a leaking protocol; empty for other protocols."""
    return f"protocol {protocol.name}: known to leak" if protocol.leaks else ""


def write_summary(results: Results) -> list[str]:
    """Summarise a study in plain words: the data first, then one string per result."""
    records = Records(results)
    sentences = [_data_sentence(results)]
    sentences += [" ".join(_model_sentences(results, model, records)) for model in results.models]
    sentences += [f"{c.a} and {c.b}: {c.verdict}{_cite_pair(records, c, '')}" for c in results.comparisons]
    verdicts = {c.verdict for c in results.comparisons}
    sentences += [
        f"{c.a} and {c.b}: {c.verdict}{_cite_pair(records, c, 'chosen ')}"
        for c in results.comparisons_chosen
        if c.verdict not in verdicts
    ]
    sentences += [
        f"{c.verdict}{records.cite(*((what, c.name) for what in CURVE_RECORDS))}" for c in results.curves
    ]
    if results.protocol.leaks:
        sentences.append(
            "The protocol is known to leak: none of these numbers says anything about the brain."
        )
    return sentences


def _count_runs(results: Results) -> int:
    return len(set(results.scores.run) - {"all"})


def _data_sentence(results: Results) -> str:
    runs = _count_runs(results)
    spaces = results.models or results.controls
    counts = _join(_count_data(results))
    return (
        f"{_join(spaces)} {'were' if len(spaces) > 1 else 'was'} fitted to the responses of {format_n_subjects(results)} in "
        f"{runs} run{'s' * (runs != 1)}{': ' + counts if counts else ''}."
    )


def _cite_pair(records: Records, c: Comparison, kind: str) -> str:
    return records.cite(
        (f"{kind}difference", record_of_comparison(c)), (f"{kind}equivalence", record_of_comparison(c))
    )


def _count_data(results: Results) -> list[str]:
    """List how many words, sentences, rows and targets the study has."""
    counts = [
        f"{results.counts[key]:,} {key}"
        for key in ("words", "sentences", "rows")
        if isinstance(results.counts.get(key), int)
    ]
    nested = results.counts.get("subjects")
    by_subject = nested if isinstance(nested, dict) else {}
    for key in ("rows", "targets"):
        span = _range([row[key] for row in by_subject.values() if isinstance(row.get(key), int)])
        if span and not any(count.endswith(key) for count in counts):
            counts.append(f"{span} {key}" + (" per subject" if len(by_subject) > 1 else ""))
    if results.space is not None and not any("targets" in count for count in counts):
        counts.append(f"{results.space.n_targets:,} targets")
    return counts


def _range(values: list[int]) -> str:
    if not values:
        return ""
    low, high = min(values), max(values)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _model_sentences(results: Results, model: str, records: Records) -> Iterator[str]:
    best = find_best_layer(results, model)
    if best is None:
        yield f"{model} has no defined score."
        return
    p, corrected = results.p.get(model), results.p_corrected.get(model)
    if p is not None and not _is_found(p, corrected):
        text = _above_chance(p, corrected, results.protocol.n_nulls)
        yield f"Nothing was found for {model} at the layer chosen in training. {text}{records.cite(('p', ''))}"
        return
    region = "the brain" if results.region == "brain" else results.region
    r = pooled_scores(results, model, "r", best).get(results.region, np.nan)
    n_layers = len(results.layers[model])
    yield (
        f"{model} has its highest mean r over {region} at layer {best} ({n_layers} layers were fitted): {_equal('r', r)}. "
        "The layer was picked by this r, which is therefore optimistic."
    )
    chosen = pooled_scores(results, model, "r_chosen").get(results.region)
    if chosen is not None:
        yield f"The layer chosen in training, without its held-out rows, has {_equal('r', chosen)}."
    if p is not None:
        text = _above_chance(p, corrected, results.protocol.n_nulls)
        yield text + records.cite(("p", ""))


def _is_found(p: np.ndarray, corrected: np.ndarray | None) -> bool:
    """Return whether any target is above chance, corrected over targets in either way."""
    family_wise = corrected is not None and bool((corrected <= 0.05).any())
    return family_wise or bool(false_discovery(p).any())


def _equal(name: str, value: float) -> str:
    """Write an equation that no line break can part."""
    return f"{name}\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}{format_number(value)}"


def _above_chance(p: np.ndarray, corrected: np.ndarray | None, n_nulls: int) -> str:
    """Count the targets above chance: corrected in two ways, and uncorrected."""
    n_defined, n_discoveries = int(np.isfinite(p).sum()), int(false_discovery(p).sum())
    n_uncorrected = int((p <= 0.05).sum())
    counts = [
        f"{n_discoveries:,} at a false-discovery rate of .05",
        f"{n_uncorrected:,} with uncorrected p ≤ .05 ({0.05 * n_defined:,.0f} expected by chance)",
    ]
    if corrected is not None:
        counts.insert(0, f"{int((corrected <= 0.05).sum()):,} with p ≤ .05 corrected over targets")
    smallest = 1 / (1 + n_nulls)
    coarse = (
        f" With {n_nulls:,} nulls the smallest possible p is {smallest:.2g}, too large for a false-discovery rate over so many "
        "targets: raise protocol.n_nulls."
        if n_discoveries == 0 and n_uncorrected and (p <= 1.001 * smallest).any()
        else ""
    )
    n_undefined = len(p) - n_defined
    verb = "target is" if n_undefined == 1 else "targets are"
    omission = f"; {n_undefined:,} undefined {verb} left out" if n_undefined else ""
    return f"Of {n_defined:,} targets, this score is above chance in {_join(counts)}{omission}.{coarse}"


def _join(parts: Any) -> str:
    """Join with commas and "and"."""
    names = list(parts)
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 2 else names)


def write_methods(results: Results) -> list[str]:
    """Describe the methods in paragraphs, from the protocol that was followed."""
    p = results.protocol
    fitting = _leaking(p) if p.leaks else " ".join(_fitting(results))
    paragraphs = [_framing(results), fitting, " ".join(_scoring(results)), " ".join(_testing(results))]
    return [text for text in paragraphs if text]


def _framing(results: Results) -> str:
    """Describe what stood around every text that each model read."""
    by_frame: dict[str, list[str]] = {}
    for model, frame in results.frames.items():
        by_frame.setdefault(frame["summary"], []).append(model)
    if not by_frame:
        return ""
    parts = [f"for {_join(models)}, {summary}" for summary, models in by_frame.items()]
    return f"Around the words, models read this: {'; '.join(parts)}."


def _leaking(p: Protocol) -> str:
    return (
        f"The analysis followed the protocol {p.name}, which reproduces a published recipe, leaks included, and must "
        "not be used to draw conclusions. It departs from a sound analysis in these ways. "
        + " ".join(p.leaks)
    )


def _fitting(results: Results) -> Iterator[str]:
    p = results.protocol
    yield (
        "Every layer of every model was related to every target (a voxel, vertex or region) by ridge regression, and scored "
        f"only on held-out rows. {_folds_text(p, _count_runs(results))}"
    )
    yield "All that follows was estimated from the training rows of each outer fold only, and again in each inner fold."
    yield _scaling_text(p)
    if p.confounds:
        yield f"{_join(p.confounds)} {'were' if len(p.confounds) > 1 else 'was'} regressed out of the models' features and of the responses."
    if p.pca is not None:
        yield (
            f"At most the first {p.pca} principal components of the models' features were kept: as many as the features and "
            "the training rows have. Controls kept their own columns."
        )
    yield _penalty_text(p)
    if results.regimes:
        names = {f"'{name}'" for solvers in results.regimes.values() for name in solvers.split(", ")}
        yield f"Scores were computed by the solver {_join(sorted(names))} (fit.regime); all solvers give the same scores up to rounding."
    if any(results.delays.values()) and any(d for delays in results.delays.values() for d in delays):
        scope = "outer fold, for all models and layers" if p.delay_by == "fold" else "target"
        yield f"One response delay was used per {scope}; where there were several candidates, it was chosen by the same inner score."
    if any(any(by.values()) for by in results.chosen_layers.values()):
        yield "In each outer fold, the layer chosen in training has the best inner score on the tenth of the targets that all layers together predict best in the training rows."


def _folds_text(p: Protocol, n_runs: int) -> str:
    if p.test_runs:
        return f"Models were fitted on all other runs and scored on {_join(p.test_runs)}."
    if p.folds == "runs" or n_runs <= int(p.folds):
        outer = (
            "One run at a time was held out" if n_runs != 1 else "One block of the run at a time was held out"
        )
    else:
        outer = f"One of {p.folds} groups of neighbouring runs at a time was held out"
    return (
        f"{outer}; a single run is cut into contiguous blocks, and training rows with scans within {p.gap} scans of a "
        "held-out row's are left out."
    )


def _scaling_text(p: Protocol) -> str:
    return {
        "training": "Features were scaled by the mean and standard deviation of the training rows.",
        "run": "Features (not responses) were scaled by the mean and standard deviation of their own run, held-out runs included.",
        "none": "Features were not scaled.",
    }[p.standardise]


def _penalty_text(p: Protocol) -> str:
    unit = (
        "as multiples of the mean eigenvalue of XᵀX, so that layers are comparable"
        if p.relative
        else "as scikit-learn's α"
    )
    if len(p.penalties) == 1:
        return f"The penalty was {p.penalties[0]:g} ({unit}) for every target."
    inner = "runs left out one at a time" if p.inner == "runs" else f"{p.inner} groups of runs"
    metric = "R²" if p.choose_by == "r2" else "r"
    return (
        f"One penalty per target was chosen from {len(p.penalties)} values between {min(p.penalties):g} and {max(p.penalties):g} "
        f"({unit}) by the {metric} of inner folds ({inner})."
    )


def _scoring(results: Results) -> Iterator[str]:
    segments = "folds" if results.protocol.leaks else "held-out runs or blocks"
    yield f"r is the Pearson correlation of prediction and response, averaged over {segments}."
    if "r2" in set(results.scores.metric):
        yield (
            "R² = 1 − ΣSSE/ΣSST over held-out rows, where SST is measured around what the training mean predicts; "
            "R² below 0 is worse than predicting that mean."
        )
    if results.protocol.leaks:
        yield "The recipe enters 0 where no voxel of a fold has a defined score, and so do these scores."
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
            f"Models were compared on the same {c.unit}, layer by layer, by a 95 % bootstrap interval over {c.n_units} {c.unit}, "
            f"p from sign flips of the {c.unit}, corrected over layers by the {largest.removeprefix('the ')} (Nichols & Holmes 2002), two "
            f"one-sided t tests for a difference within ±{c.margin:g} (Schuirmann 1987), and the Bayes factor of a t test (Rouder et al. "
            f"2009){records.cite(*((k, record_of_comparison(c)) for k in ('difference', 'interval', 'equivalence')))}."
        )
    yield from _more_tests(results, records)


def _null_text(p: Protocol) -> str:
    surrogates = {
        "shift": "In each null, the responses of every run, training runs included, were shifted circularly by a random amount "
        "between a tenth and nine tenths of the run. A circular shift keeps the autocorrelation of the responses, except at the seam "
        "where end meets beginning.",
        "block": f"In each null, blocks of {p.null_block} neighbouring rows were shuffled within every run, training runs included.",
        "phase": "In each null, the phases of the responses were randomised within every run, training runs included, in the same way for "
        "all targets.",
    }[p.null]
    if p.null_penalties == "kept":
        return f"{surrogates} The weights were then fitted again, with the layers, delays and penalties of the true fit."
    return (
        f"{surrogates} The weights were then fitted again, with the layers and delays of the true fit and penalties chosen again by "
        "inner folds."
    )


def _tests_runs(results: Results) -> bool:
    """Return whether any test is over the runs of one subject."""
    return "runs" in {c.unit for c in results.comparisons} | {c.unit for c in results.curves}


def _more_tests(results: Results, records: Records) -> Iterator[str]:
    if _tests_runs(results):
        yield "Runs share training data, so the variance over runs was corrected upwards (Nadeau & Bengio 2003)."
    if results.curves:
        yield (
            "The mean curve over layers was tested against a flat curve, the layer of its peak has a 95 % bootstrap interval, and two "
            "lines were fitted to it, before and after a split (Simonsohn 2018)"
            f"{records.cite(*((what, c.name) for c in results.curves for what in CURVE_RECORDS))}."
        )
    if results.people:
        yield "Scores were tested over subjects by sign flips of whole subjects and the largest t (Winkler et al. 2014)."
    if any(t.clusters is not None for t in results.people):
        yield "Neighbouring targets supported each other by threshold-free cluster enhancement (Smith & Nichols 2009)."
    if results.mixed is not None and np.isfinite(results.mixed.effect).any():
        yield "A mixed model let differences vary between subjects (Barr et al. 2013)."
    if results.shared is not None:
        yield "Noise ceilings compare each subject with the other subjects only (Nastase et al. 2019) and resample whole subjects (Chen et al. 2016)."
    if results.repeats:
        yield "The ceiling of a repeated run is CC_max of the normalised correlation (Schoppe et al. 2016)."


def _corrections(results: Results) -> str:
    rate = "targets were counted at a false-discovery rate of .05 (Benjamini & Hochberg 1995)"
    if not results.p_corrected:
        return f"; {rate}"
    return (
        f"; it was corrected over targets by the largest r of each null (Nichols & Holmes 2002), and {rate}"
    )


def list_references(results: Results) -> list[str]:
    """List the publications behind the methods and the data of a study."""
    in_use = {
        "nilearn": True,
        "hadidi": bool(results.protocol.leaks)
        or "r2" in set(results.scores.metric)
        or bool(results.partitions),
        "phipson": bool(results.p),
        "benjamini": bool(results.p) or bool(results.people),
        "nichols": bool(results.comparisons) or bool(results.p_corrected) or bool(results.people),
        "schuirmann": bool(results.comparisons),
        "rouder": bool(results.comparisons),
        "nadeau": _tests_runs(results),
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
    software = [REFERENCES[key] for key, is_used in in_use.items() if is_used]
    if "citation" not in results.source:
        return software
    licence = f" Licence of the data: {results.source['licence']}" if "licence" in results.source else ""
    return [f"Data: {results.source['citation']}{licence}", *software]
