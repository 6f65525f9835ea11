"""Findings about a study before it is run: leaks, from its protocol and its rows.

Definitions follow critiques of encoding benchmarks (Feghhi et al. 2024, doi:10.48550/arXiv.2406.01538), and measurements of
the published recipe that `langcortex.encoding.replication.recipe` keeps.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from langcortex.audit.findings import Audit, Finding, sorted_audit
from langcortex.audit.rows import StudyRows, describe_cleaning, recipe_units, study_rows
from langcortex.datasets import Corpus
from langcortex.encoding.protocol import REPLICATION_LEAKS, Protocol
from langcortex.encoding.replication.recipe import N_VOXELS
from langcortex.errors import LangcortexError
from langcortex.study.corpus import make_protocol, open_corpus, read_words
from langcortex.study.frames import frame_differences, read_frames
from langcortex.study.settings import ModelSettings, Study
from langcortex.study.subject import subject_story
from langcortex.study.user_code import require_permission

SLOW = 10.0  # seconds: within them, neighbouring responses share most of a haemodynamic response
SMALL = 30  # rows of a test segment; in fewer, the r of noise has a standard deviation above .19
PLACE = {"position", "trend", "position_in_run", "position_onehot", "position_ramps", "oasm"}
MANY = 0.02  # share of test sentences that may be in training rows too before it is more than a note


def audit_study(study: Study) -> Audit:
    """Audit a study for leaks, without fitting or loading a model.

    The rows are those of the first subject, aligned from headers alone where the corpus has them.

    Parameters
    ----------
    study : from `langcortex.study.settings_file.read_study`

    Returns
    -------
    Audit, leaks first

    Raises
    ------
    LangcortexError : the study cannot be read, as `langcortex.study.check` would say
    """
    require_permission(study)
    corpus = open_corpus(study)
    protocol = make_protocol(study, corpus)
    story, _ = read_words(study, corpus)
    subject = next(iter(corpus.subjects()))
    pieces = subject_story(study, corpus, story, subject)
    rows = study_rows(study, protocol, corpus, story, pieces, subject)
    findings = [*_fold_findings(rows, protocol), *_text_findings(rows), *_size_findings(rows)]
    if protocol.is_published:
        findings += _recipe_findings(study, rows)
        if study.protocol.row_shift:
            findings += _shift_findings(recipe_units(story))
    else:
        findings += _protocol_findings(protocol)
    findings += _confound_findings(study, protocol, rows)
    findings += _cleaning_findings(corpus, rows, protocol)
    findings += _nuisance_findings(study, rows)
    findings += _baseline_findings(study)
    findings += _left_out_findings(rows)
    findings += _frame_findings(study)
    return sorted_audit(findings)


def _fold_findings(rows: StudyRows, protocol: Protocol) -> Iterator[Finding]:
    """Find test rows that share scans with training rows, or are close to them."""
    cut = rows.cut_runs()
    if not cut:
        return
    shares, hit = rows.overlaps()
    if hit.any():
        n_tested = len(set(np.concatenate([fold.test for fold in rows.folds]).tolist()))
        yield Finding(
            "leak",
            REPLICATION_LEAKS[2]
            if protocol.name != "rigorous"
            else "Test rows share scans, delays included, with training rows.",
            f"{hit.sum() / n_tested:.1%} of test rows share a scan with a training row ({max(shares):.1%} in the worst of {len(shares)} folds); "
            f"{rows.neighbours():.1%} of neighbouring rows share one. On noise as slow as BOLD, with slow features, this alone gives an r of .4 to .6.",
            tuple(rows.ids[np.flatnonzero(hit)[:3]].tolist()),
            'Leave whole runs out: protocol.preset = "rigorous", protocol.folds = "runs".',
        )
        return
    apart = rows.seconds_apart()
    close = np.isnan(apart) or apart < SLOW
    yield Finding(
        "risk" if close else "note",
        f"Run '{cut[0]}' is cut: some of its rows are training rows, others test rows.",
        "Its rows have no times, so it is unknown how far apart they are."
        if np.isnan(apart)
        else f"Training rows come as close as {apart:g} s to test rows"
        + (
            f", and a response to words lasts more than {SLOW:g} s."
            if close
            else "; slow drifts still cross."
        ),
        tuple(cut[:3]),
        "Record more runs, or set a larger protocol.gap (in scans)."
        if close
        else "Leave whole runs out where there are several.",
    )


def _text_findings(rows: StudyRows) -> Iterator[Finding]:
    """Find test sentences that are in training rows too, word by word."""
    share, first = rows.repeated_text()
    if share > 0:
        level = "note" if share <= MANY else "risk" if share <= 0.1 else "leak"
        yield Finding(
            level,
            "Sentences of four words and more are in training and test rows alike, so that a fit may memorise its test rows.",
            f"{share:.1%} of test sentences are in training rows too.",
            first,
            "Keep runs that share text in one fold (protocol.test_runs), or leave one of them out.",
        )


def _size_findings(rows: StudyRows) -> Iterator[Finding]:
    """Find test segments that are too short for a correlation."""
    sizes = rows.segment_sizes()
    name, n = min(sizes.items(), key=lambda segment: segment[1])
    if n < SMALL:
        spread = f"{1 / np.sqrt(max(n - 1, 1)):.2f}"
        yield Finding(
            "risk",
            "Some test segments have few rows.",
            f"The smallest has {n}, where the r of noise has a standard deviation of {spread}; {sum(k < SMALL for k in sizes.values())} of {len(sizes)} have fewer than {SMALL}.",
            (name,),
            "Use fewer folds (protocol.folds) or longer runs.",
        )
    if len(sizes) == 1:
        yield Finding(
            "note",
            "There is one test segment, so nothing shows how much scores vary from run to run.",
            f"All {n} test rows are of '{name}'.",
            (name,),
            "Name more runs in protocol.test_runs, or leave one run out at a time.",
        )


def _protocol_findings(protocol: Protocol) -> Iterator[Finding]:
    """Find choices of the protocol that are learnt on test rows."""
    for leak in protocol.leaks:
        yield Finding("leak", leak, "The protocol declares it.", (), 'Use protocol.preset = "rigorous".')
    if protocol.standardise == "run":
        yield Finding(
            "risk",
            "Features of a test run are scaled by that run's own mean and standard deviation.",
            "Responses are not used, so noise gains nothing; but in use, the scale of a new run is not known beforehand.",
            (),
            'Set protocol.standardise = "training".',
        )
    if not protocol.nested_axes:
        yield Finding(
            "note",
            "Inner folds share scales and principal components of the outer training rows.",
            "Test rows are not used; the inner score of a penalty may be slightly too high.",
            (),
            "Set protocol.nested_axes = true.",
        )


# how bad each sentence of REPLICATION_LEAKS is, and its fix; shuffled folds are measured on the rows
_RECIPE = (
    (
        "leak",
        "On noise, with the folds fixed, this alone gives an r of .16 to .25, and a peak at the layer that picked the voxels.",
        "Score all targets, or a region that is chosen beforehand (compare.region).",
    ),
    (
        "leak",
        "The best of 4 delays is used, by the 100 targets with the highest scores in the scored rows.",
        "Choose the delay in training folds.",
    ),
    ("leak", "", ""),
    (
        "leak",
        "The confound's slope in the test rows is known beforehand; one number per fold.",
        "Learn confound coefficients on training rows.",
    ),
    ("risk", "Up to 300 different voxels, and any of 4 delays.", "Use one delay and all targets for both models."),
    (
        "risk",
        "100 to 10000 for any variance of a layer, so that layers are not comparable.",
        "Make penalties relative to the features' variance (protocol.relative).",
    ),
)  # fmt: skip


def _recipe_findings(study: Study, rows: StudyRows) -> Iterator[Finding]:
    """List what the published recipe learns on test rows."""
    all_at_once = ' Or all at once: protocol.preset = "rigorous".'
    for i, (leak, (level, how_bad, fix)) in enumerate(zip(REPLICATION_LEAKS, _RECIPE, strict=True)):
        if i == 2 or (i == 4 and len(study.models) < 2):
            continue
        if i == 0 and rows.n_targets is not None:
            n_kept = min(N_VOXELS, rows.n_targets)
            how_bad = f"{n_kept} of {rows.n_targets:,} targets are kept. {how_bad}"
        yield Finding(level, leak, how_bad, (), fix + all_at_once)
    yield Finding(
        "risk",
        "No layer is chosen in training: the best one is picked on the scores that are reported.",
        "The largest of many scores is too large, on noise too, and the layer that picked the voxels is among them.",
        (),
        "Report the layer chosen in training." + all_at_once,
    )


def _shift_findings(units: Mapping[str, np.ndarray]) -> Iterator[Finding]:
    """Count the rows that are paired with another row's response after units were dropped.

    Parameters
    ----------
    units : run → (n_units,) bool, the units that the recipe keeps
    """
    shifts = {run: np.flatnonzero(mask) - np.arange(int(mask.sum())) for run, mask in units.items()}
    all_shifts = np.concatenate(list(shifts.values()))
    n_dropped = sum(int((~mask).sum()) for mask in units.values())
    if not all_shifts.any():
        return
    first = next(run for run, shift in shifts.items() if shift.any())
    yield Finding(
        "leak",
        "Rows are paired by position after units were dropped from one side only.",
        f"{n_dropped} of {sum(map(len, units.values()))} units are dropped for having one word (a tokenizer drops more), and {np.mean(all_shifts > 0):.1%} of the others are paired with "
        f"another unit's response, {all_shifts.mean():.1f} units away on average and {all_shifts.max()} at most.",
        (first,),
        "Leave protocol.row_shift out: rows are then matched by id.",
    )


def _confound_findings(study: Study, protocol: Protocol, rows: StudyRows) -> Iterator[Finding]:
    """Find lengths and counts of words that models may use."""
    confounds, controls = set(protocol.confounds), set(study.features.controls)
    recipe = protocol.is_published
    if recipe:
        controls = set()  # the recipe fits no control
    names = ("word_count",) if rows.kind != "text" else ("duration", "word_count")
    equivalents = {"word_count": {"word_count", "word_rate", "letters"}, "duration": {"duration"}}
    for name in names:
        if confounds & equivalents[name]:
            continue
        low, high = rows.spread[name]
        summed = (
            " Features are summed over words, and carry the count itself."
            if study.features.pool == "sum"
            else ""
        )
        is_control = bool(controls & equivalents[name])
        fix = f"Add it: protocol.confounds = {[*protocol.confounds, name]}.".replace("'", '"')
        yield Finding(
            "note" if is_control and not summed else "risk",
            f"'{name}' is not regressed out" + (", but it is fitted as a control." if is_control else ", nor is it a control."),
            f"It goes from {low:.3g} to {high:.3g} over the rows (10 % and 90 %).{summed}",
            (),
            f'Use protocol.preset = "rigorous". {fix}' if recipe else fix,
        )  # fmt: skip
    if study.models and not (confounds | controls) & PLACE:
        yield Finding(
            "note",
            "No control tells where in its run a row is.",
            "Neighbouring rows are similar in text and in responses. With shuffled folds, nearness alone got an r of .45 on "
            "sentences of Pereira et al., with contiguous ones .00 (doi:10.1101/2025.03.09.642245).",
            (),
            'Add "position" or "oasm" to features.controls.',
        )


def _nuisance_findings(study: Study, rows: StudyRows) -> Iterator[Finding]:
    """Find recordings that the study cleans without nuisance signals."""
    if rows.kind != "answers" and study.data.corpus == "files" and study.recording.confounds is None:
        yield Finding(
            "note",
            "No nuisance signals, such as motion, are regressed out of the recordings.",
            "They are noise where they do not follow the story, and a confound where people move with what they hear; "
            "how large they are is unknown.",
            (),
            "Set recording.confounds, unless the files were cleaned of them already.",
        )


def _cleaning_findings(corpus: Corpus, rows: StudyRows, protocol: Protocol) -> Iterator[Finding]:
    """Find what the cleaning of runs, or its absence, carries across folds."""
    if rows.kind == "answers":
        return
    cleaning, recipe = describe_cleaning(corpus), protocol.is_published
    removed = ["its mean and standard deviation"] if recipe or cleaning.standardise else []
    removed += ["its trend"] if cleaning.detrend else []
    removed += ["its slow drifts"] if cleaning.high_pass else []
    cut = rows.cut_runs()
    if cut and removed:
        yield Finding(
            "risk",
            f"Each run is freed of {' and '.join(removed)} as a whole, before it is cut into training and test rows.",
            "A few numbers per target and run are learnt on test rows too.",
            tuple(cut[:3]),
            "Leave whole runs out.",
        )
    reading = getattr(corpus, "reading", None)
    if (
        reading is not None and reading.cleaning.get("high_pass", True) is None
    ):  # set by the study, not by the corpus
        yield Finding(
            "risk",
            "Slow drifts are left in.",
            "On smooth noise and slow features, drifts took the r of the 2025 recipe from .51 to .72.",
            (),
            "Leave recording.high_pass at 1/128 Hz, unless the data came without drifts.",
        )


def _baseline_findings(study: Study) -> Iterator[Finding]:
    """Find models without an untrained twin."""
    trained = [m for m in study.models if m.untrained_seed is None and not _has_twin(m, study.models)]
    if trained:
        names = ", ".join(m.label for m in trained)
        yield Finding(
            "note",
            f"There is no untrained twin of {names}.",
            "What random weights predict too does not come from what the model learnt.",
            (),
            "Set untrained = 3 in [[models]].",
        )


def _frame_findings(study: Study) -> Iterator[Finding]:
    """Find compared models that read different tokens or text around the same words."""
    try:
        frames = read_frames(study)
    except LangcortexError:  # which the check and the run say
        return
    for a, b, differences in frame_differences(study, frames):
        yield Finding(
            "risk",
            f"{a} and {b} are compared, and read the same words in different frames.",
            f"They differ in {', '.join(differences)}: a difference between them may be due to that. "
            f"{a}: {frames[a].summary}. {b}: {frames[b].summary}.",
            (),
            "Set features.bos = true or false, or compare models with the same frame.",
        )


def _has_twin(model: ModelSettings, models: Sequence[ModelSettings]) -> bool:
    return bool(model.untrained) or any(
        m.source == model.source and m.untrained_seed is not None for m in models
    )


def _left_out_findings(rows: StudyRows) -> Iterator[Finding]:
    if rows.left_out:
        first, why = next(iter(rows.left_out.items()))
        yield Finding(
            "note",
            "Some units of the story have no row.",
            f"{len(rows.left_out)} of {len(rows.left_out) + len(rows.ids)} do not, because {why}.",
            (first,),
            "Nothing, if they are few; otherwise check recording.stimulus_onset and design.delays.",
        )
