"""What a study's protocol lets leak, from its declared choices and its actual rows, before any model reads.

Definitions follow critiques of encoding benchmarks (Feghhi et al. 2024, doi:10.48550/arXiv.2406.01538), and measurements of
the published recipe that `langcortex.encoding.replication.recipe` keeps.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from langcortex.audit.findings import Audit, Finding, sorted_audit
from langcortex.audit.rows import StudyRows, describe_cleaning, dropped_units, study_rows
from langcortex.datasets import Corpus
from langcortex.encoding.protocol import REPLICATION_LEAKS, Protocol
from langcortex.encoding.replication.recipe import N_VOXELS
from langcortex.study.corpus import make_protocol, open_corpus, read_words
from langcortex.study.settings import ModelSettings, Study
from langcortex.study.subject import subject_story

SLOW = 10.0  # seconds: within them, neighbouring responses share most of a haemodynamic response
SMALL = 30  # rows of a held-out piece: the r of noise has a standard deviation of .19
PLACE = {"position", "trend", "position_in_run", "position_onehot", "position_ramps", "oasm"}
MANY = 0.02  # share of test sentences that may stand in the training rows too before it is more than a note


def audit_study(study: Study) -> Audit:
    """Look for what leaks in a study, without fitting anything or loading a model.

    The rows are those of the first subject, aligned as the study says from headers alone where the corpus has them.

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
    corpus = open_corpus(study)
    protocol = make_protocol(study, corpus)
    story, _ = read_words(study, corpus)
    subject = next(iter(corpus.subjects()))
    pieces = subject_story(study, corpus, story, subject)
    rows = study_rows(study, protocol, corpus, story, pieces, subject)
    found = [*_of_folds(rows, protocol), *_of_text(rows), *_of_sizes(rows)]
    if protocol.is_published:
        found += _of_recipe(study, rows)
        if study.protocol.row_shift:
            found += _of_shift(dropped_units(story))
    else:
        found += _of_learning(protocol)
    found += _of_confounds(study, protocol, rows)
    found += _of_cleaning(corpus, rows, protocol)
    found += _of_nuisance(study, rows)
    found += _of_baselines(study)
    found += _of_left_out(rows)
    return sorted_audit(found)


def _of_folds(rows: StudyRows, protocol: Protocol) -> Iterator[Finding]:
    """Say whether test rows rest on scans of training rows, or lie close to them."""
    cut = rows.cut_runs()
    if not cut:
        return
    shares, hit = rows.overlaps()
    if hit.any():
        tested = len(set(np.concatenate([fold.test for fold in rows.folds]).tolist()))
        yield Finding(
            "leak",
            REPLICATION_LEAKS[2]
            if protocol.name != "rigorous"
            else "Test rows share scans, delays included, with training rows.",
            f"{hit.sum() / tested:.1%} of test rows share a scan with a training row ({max(shares):.1%} in the worst of {len(shares)} folds); "
            f"{rows.neighbours():.1%} of neighbouring rows share one. On noise as slow as BOLD, with slow features, this alone gives an r of .4 to .6.",
            tuple(rows.ids[np.flatnonzero(hit)[:3]].tolist()),
            'Leave whole runs out: protocol.preset = "rigorous", protocol.folds = "runs".',
        )
        return
    apart = rows.seconds_apart()
    close = np.isnan(apart) or apart < SLOW
    yield Finding(
        "risk" if close else "note",
        f"Run '{cut[0]}' is cut: some of its rows are learnt from, others tested on.",
        "Its rows have no times, so nobody can say how far apart they are."
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


def _of_text(rows: StudyRows) -> Iterator[Finding]:
    """Say how many test sentences stand word by word in the training rows."""
    share, first = rows.repeated_text()
    if share > 0:
        level = "note" if share <= MANY else "risk" if share <= 0.1 else "leak"
        yield Finding(
            level,
            "Sentences of four words and more stand in training and test rows alike, so that a model may know its test by heart.",
            f"{share:.1%} of test sentences are also learnt from.",
            first,
            "Keep runs that share text in one fold (protocol.test_runs), or leave one of them out.",
        )


def _of_sizes(rows: StudyRows) -> Iterator[Finding]:
    """Say whether held-out pieces are too short for a correlation."""
    sizes = rows.piece_sizes()
    name, n = min(sizes.items(), key=lambda item: item[1])
    if n < SMALL:
        spread = f"{1 / np.sqrt(max(n - 1, 1)):.2f}"
        yield Finding(
            "risk",
            "Some held-out pieces have few rows.",
            f"The smallest has {n}, where the r of noise has a standard deviation of {spread}; {sum(k < SMALL for k in sizes.values())} of {len(sizes)} have fewer than {SMALL}.",
            (name,),
            "Use fewer folds (protocol.folds) or longer runs.",
        )
    if len(sizes) == 1:
        yield Finding(
            "note",
            "One piece is held out, so nothing shows how much scores vary from run to run.",
            f"All {n} test rows are of '{name}'.",
            (name,),
            "Name more runs in protocol.test_runs, or let runs take turns.",
        )


def _of_learning(protocol: Protocol) -> Iterator[Finding]:
    """Say what is learnt on test rows by choices of the protocol."""
    for leak in protocol.leaks:
        yield Finding("leak", leak, "The protocol declares it.", (), 'Use protocol.preset = "rigorous".')
    if protocol.standardise == "run":
        yield Finding(
            "risk",
            "Features of a test run are scaled by that run's own mean and standard deviation.",
            "Responses take no part, so noise gains nothing; but a model in use would not know its test run's scale.",
            (),
            'Set protocol.standardise = "training".',
        )
    if not protocol.nested_axes:
        yield Finding(
            "note",
            "Inner folds share scales and axes of the outer training rows.",
            "Test rows take no part; a penalty may look slightly better inside than it is.",
            (),
            "Set protocol.nested_axes = true.",
        )


# how bad each sentence of REPLICATION_LEAKS is, and its mend; that of shuffled folds is measured on the rows
_RECIPE = (
    (
        "leak",
        "On noise, with folds mended, this alone gives an r of .16 to .25, and a peak at the layer that picked the voxels.",
        "Score all targets, or a region that is given beforehand (compare.region).",
    ),
    (
        "leak",
        "The best of 4 delays is taken, by the 100 targets that the scored rows favour.",
        "Choose the delay in training folds.",
    ),
    ("leak", "", ""),
    (
        "leak",
        "The confound's slope in the test rows is known beforehand; one number a fold.",
        "Learn confound coefficients on training rows.",
    ),
    ("risk", "Up to 300 different voxels, and any of 4 delays.", "Give both models one delay and all targets."),
    (
        "risk",
        "100 to 10000 whatever a layer's variance, so that layers are not comparable.",
        "Make penalties relative to the features' variance (protocol.relative).",
    ),
)  # fmt: skip


def _of_recipe(study: Study, rows: StudyRows) -> Iterator[Finding]:
    """Say what the published recipe learns on test rows."""
    mend = ' Or all at once: protocol.preset = "rigorous".'
    for i, (leak, (level, how_bad, cure)) in enumerate(zip(REPLICATION_LEAKS, _RECIPE, strict=True)):
        if i == 2 or (i == 4 and len(study.models) < 2):
            continue
        if i == 0 and rows.n_targets is not None:
            kept = min(N_VOXELS, rows.n_targets)
            how_bad = f"{kept} of {rows.n_targets:,} targets are kept. {how_bad}"
        yield Finding(level, leak, how_bad, (), cure + mend)
    yield Finding(
        "risk",
        "No layer is chosen in training: the best one is read off the scores that are reported.",
        "A largest score of many is too large, on noise too, and the layer that picked the voxels is among them.",
        (),
        "Report the layer chosen in training." + mend,
    )


def _of_shift(units: Mapping[str, np.ndarray]) -> Iterator[Finding]:
    """Say how many rows meet another row's response after units were dropped."""
    shifts = {run: np.flatnonzero(kept) - np.arange(int(kept.sum())) for run, kept in units.items()}
    every = np.concatenate(list(shifts.values()))
    dropped = sum(int((~kept).sum()) for kept in units.values())
    if not every.any():
        return
    first = next(run for run, shift in shifts.items() if shift.any())
    yield Finding(
        "leak",
        "Rows are paired by position after units were dropped from one side only.",
        f"{dropped} of {sum(map(len, units.values()))} units are dropped for having one word (a tokenizer drops more), and {np.mean(every > 0):.1%} of the others meet "
        f"another unit's response, {every.mean():.1f} units away on average and {every.max()} at most.",
        (first,),
        "Leave protocol.row_shift out: rows then meet by id.",
    )


def _of_confounds(study: Study, protocol: Protocol, rows: StudyRows) -> Iterator[Finding]:
    """Say which lengths and counts of words the models may live on."""
    taken, beside = set(protocol.confounds), set(study.features.controls)
    recipe = protocol.is_published
    if recipe:
        beside = set()  # the recipe fits no control
    wanted = ("word_count",) if rows.kind != "text" else ("duration", "word_count")
    alike = {"word_count": {"word_count", "word_rate", "letters"}, "duration": {"duration"}}
    for name in wanted:
        if taken & alike[name]:
            continue
        low, high = rows.spread[name]
        summed = (
            " Features are summed over words, and carry the count itself."
            if study.features.pool == "sum"
            else ""
        )
        stands = bool(beside & alike[name])
        mend = f"Add it: protocol.confounds = {[*protocol.confounds, name]}.".replace("'", '"')
        yield Finding(
            "note" if stands and not summed else "risk",
            f"'{name}' is not regressed out" + (", but stands beside the models as a control." if stands else ", nor is it a control."),
            f"It goes from {low:.3g} to {high:.3g} over the rows (10 % and 90 %).{summed}",
            (),
            f'Use protocol.preset = "rigorous". {mend}' if recipe else mend,
        )  # fmt: skip
    if study.models and not (taken | beside) & PLACE:
        yield Finding(
            "note",
            "Nothing beside the models knows only where in its run a row stands.",
            "Neighbouring rows are alike in text and in responses. With shuffled folds nearness alone got an r of .45 on "
            "sentences of Pereira et al., with contiguous ones .00 (doi:10.1101/2025.03.09.642245).",
            (),
            'Add "position" or "oasm" to features.controls.',
        )


def _of_nuisance(study: Study, rows: StudyRows) -> Iterator[Finding]:
    """Say whether motion and the like stay in recordings that the study itself cleans."""
    if rows.kind != "answers" and study.data.corpus == "files" and study.recording.confounds is None:
        yield Finding(
            "note",
            "No nuisance signals, such as motion, are taken off the recordings.",
            "They are noise where they do not follow the story, and a confound where people move with what they hear; "
            "how large they are nobody has said.",
            (),
            "Set recording.confounds, unless the files were cleaned of them already.",
        )


def _of_cleaning(corpus: Corpus, rows: StudyRows, protocol: Protocol) -> Iterator[Finding]:
    """Say what cleaning a whole run, or not cleaning it, brings across folds."""
    if rows.kind == "answers":
        return
    cleaning, recipe = describe_cleaning(corpus), protocol.is_published
    done = ["its mean and standard deviation"] if recipe or cleaning.standardise else []
    done += ["its trend"] if cleaning.detrend else []
    done += ["its slow drifts"] if cleaning.high_pass else []
    cut = rows.cut_runs()
    if cut and done:
        yield Finding(
            "risk",
            f"Each run is freed of {' and '.join(done)} as a whole, before it is cut into training and test rows.",
            "A few numbers a target and run are learnt on test rows too.",
            tuple(cut[:3]),
            "Leave whole runs out.",
        )
    reading = getattr(corpus, "reading", None)
    if (
        reading is not None and reading.cleaning.get("high_pass", True) is None
    ):  # the study says so, not the corpus
        yield Finding(
            "risk",
            "Slow drifts are left in.",
            "On smooth noise and slow features, drifts took the r of the 2025 recipe from .51 to .72.",
            (),
            "Leave recording.high_pass at 1/128 Hz, unless the data came without drifts.",
        )


def _of_baselines(study: Study) -> Iterator[Finding]:
    """Say whether something stands beside the models that knows no language."""
    trained = [m for m in study.models if m.untrained_seed is None and not _has_twin(m, study.models)]
    if trained:
        names = ", ".join(m.label for m in trained)
        yield Finding(
            "note",
            f"No untrained twin stands beside {names}.",
            "What random weights predict too is no merit of what the model learnt.",
            (),
            "Set untrained = 3 in [[models]].",
        )


def _has_twin(model: ModelSettings, models: Sequence[ModelSettings]) -> bool:
    return bool(model.untrained) or any(
        other.source == model.source and other.untrained_seed is not None for other in models
    )


def _of_left_out(rows: StudyRows) -> Iterator[Finding]:
    if rows.left_out:
        first, why = next(iter(rows.left_out.items()))
        yield Finding(
            "note",
            "Some pieces of the story have no row.",
            f"{len(rows.left_out)} of {len(rows.left_out) + len(rows.ids)} do not, because {why}.",
            (first,),
            "Nothing, if they are few; otherwise check recording.stimulus_onset and design.delays.",
        )
