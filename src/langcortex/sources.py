"""From settings to nouns: the corpus, the story as a model reads it, controls, one subject's rows."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pandas as pd

from langcortex.clock import Lag, find_lag
from langcortex.datasets import CORPORA, Corpus, FilesCorpus, Reading, open_named
from langcortex.design import HRF, Delays, Design, align, align_responses, align_sentences
from langcortex.errors import AlignmentError, SettingsError, StoryError
from langcortex.features import Features, control
from langcortex.features.controls import bind, check_controls
from langcortex.files import expand, require_file
from langcortex.protocol import Protocol
from langcortex.recording import Recording, Responses, average
from langcortex.regions import Atlas, in_folder
from langcortex.settings import RecordingSettings, Study, load_object
from langcortex.story import Story
from langcortex.text import with_text, written
from langcortex.timing import candidate_delays

Runs = list[Recording] | list[Responses]


def open_corpus(study: Study) -> Corpus:
    """Make the corpus a study names."""
    name = study.data.corpus
    if name in CORPORA:
        ignored = _ignored(study)
        if ignored:
            raise SettingsError(
                f"{ignored} belongs to data.corpus = \"files\"; the corpus '{name}' knows its own files. Leave it out."
            )
        return open_named(name, study.base, _reading(study), study.data.options)
    if name != "files":
        if ":" not in name:
            raise SettingsError(
                f'data.corpus is \'{name}\'. It is "files", {", ".join(CORPORA)}, or "my_module:corpus".'
            )
        _refuse_regions(study)
        made = load_object(name, Path(study.folder))(study.base, **study.data.options)
        if not isinstance(made, Corpus):
            raise SettingsError(
                f"'{name}' must return an object with subjects(), story(), runs(subject) and recording(subject, run)."
            )
        return made
    for table, what in ((study.story, "story"), (study.recording, "recording")):
        if not table.files:
            raise SettingsError(f"The study says nowhere where the {what} is. Set {what}.files.")
    r, s = study.recording, study.story
    return FilesCorpus(
        base=study.base,
        story_files=s.files,
        recording_files=r.files,
        run_labels=r.runs,
        tier=s.tier,
        accept_truncated=s.accept_truncated,
        confounds=r.confounds,
        reading=_reading(study),
    )


def _refuse_regions(study: Study) -> None:
    """Say that a corpus of one's own names its regions itself."""
    usual = RecordingSettings()
    for key in ("regions", "atlas", "targets"):
        if getattr(study.recording, key) != getattr(usual, key):
            raise SettingsError(
                f"recording.{key} is for corpora that langcortex reads; a corpus of your own gives its regions with the Space of its recordings. Leave it out."
            )


def _ignored(study: Study) -> str:
    """Name a setting of [story] or [recording] that only a corpus of files heeds."""
    for what, keys in (
        ("story", ("files", "tier", "accept_truncated")),
        ("recording", ("files", "runs", "columns", "confounds")),
    ):
        given = getattr(study, what).model_fields_set
        for key in keys:
            if key in given:
                return f"{what}.{key}"
    return ""


def _reading(study: Study) -> Reading:
    """Gather what the study asks of every recording."""
    r, replication = study.recording, study.protocol.preset == "replication-2025"
    names = {"detrend": "detrend", "high_pass": "high_pass", "standardise": "standardise"}
    cleaning = {ours: getattr(r, key) for key, ours in names.items() if key in r.model_fields_set}
    if "high_pass" in cleaning:
        cleaning["high_pass"] = cleaning["high_pass"] or None
    if r.confound_columns:
        cleaning["confounds"] = tuple(r.confound_columns)
    if replication and r.targets == "parcels":
        raise SettingsError(
            "The preset 'replication-2025' chooses voxels, so recording.targets cannot be \"parcels\". Leave it out."
        )
    if replication:
        # the recipe scales whole runs itself, and does nothing else
        cleaning = {"detrend": False, "high_pass": None, "standardise": False}
    sentences = study.story.sentences
    return Reading(
        subjects=r.subjects,
        sentences="pauses" if replication and sentences == "auto" else sentences,
        tr=r.tr,
        stimulus_onset=r.stimulus_onset,
        reference=r.reference,
        columns=r.columns,
        mask=_mask(study, r.mask, replication),
        cleaning=cleaning,
        regions=regions_of(study),
        atlas=atlas_of(study),
        parcels=r.targets == "parcels",
    )


def regions_of(study: Study) -> dict[str, Path | list[str]]:
    """Find the masks and columns that a study calls regions."""
    given = study.recording.regions
    if isinstance(given, str):
        return dict(in_folder(_path(study, given)))
    return {name: where if isinstance(where, list) else _path(study, where) for name, where in given.items()}


def atlas_of(study: Study) -> Atlas | None:
    """Give the atlas that a study names, if it does."""
    a = study.recording.atlas
    if not a.file:
        if a.labels or a.keep:
            raise SettingsError("recording.atlas has no file. Set recording.atlas.file.")
        return None
    labels = _path(study, a.labels) if a.labels else None
    return Atlas(_path(study, a.file), labels, tuple(a.keep), a.threshold)


def _mask(study: Study, mask: str, replication: bool) -> Path | str:
    if mask == "compute":
        return "all" if replication else mask
    return mask if mask == "all" else _path(study, mask)


def _path(study: Study, name: str) -> Path:
    path = Path(name).expanduser()
    return path if path.is_absolute() else study.base / path


def protocol_of(study: Study, corpus: Corpus) -> Protocol:
    """Give the study's protocol; a corpus with a story of its own for testing is tested on it unless the study says how to fold."""
    protocol = study.to_protocol()
    held_out = tuple(getattr(corpus, "test_runs", ()))
    said = {"test_runs", "folds"} & study.protocol.model_fields_set
    if not held_out or said or protocol.name != "rigorous":
        return protocol
    return dataclasses.replace(protocol, test_runs=held_out)


def remarks(corpus: Corpus) -> list[str]:
    """Gather what a corpus says was left out or is uncertain."""
    return list(corpus.remarks()) if hasattr(corpus, "remarks") else []


def source_of(corpus: Corpus) -> dict[str, str]:
    """Gather what to cite of a corpus, and its licence."""
    return {name: str(getattr(corpus, name)()) for name in ("citation", "licence") if hasattr(corpus, name)}


def read_words(study: Study, corpus: Corpus) -> tuple[Story, pd.DataFrame | None]:
    """Read the story as the models are to read it.

    Returns
    -------
    story : its words are tied to the labels that were timed
    unmatched : with ``story.text``, what did not align (`langcortex.text.with_text`)
    """
    story, unmatched = corpus.story(), None
    if study.story.text:
        if hasattr(corpus, "story_of"):
            raise SettingsError(
                f"The corpus '{study.data.corpus}' brings its own text; leave story.text out."
            )
        files = expand(study.story.text, study.base, StoryError)
        texts = {run: _text(path) for run, path in files.items()}
        if list(texts) and not set(texts) & set(story.runs) and len(texts) == len(story.runs) == 1:
            texts = {story.runs[0]: next(iter(texts.values()))}
        story, unmatched = with_text(story, texts)
    return (written(story) if study.story.written else story), unmatched


def _text(path: Path) -> str:
    require_file(path, StoryError, "text of the story")
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise StoryError(f"{path} is not UTF-8 text ({error}). Save it as UTF-8.") from error


def own_story(study: Study, corpus: Corpus, story: Story, subject: str) -> Story:
    """Give a subject's pieces: those of everyone, or with this reader's own times where everyone has their own."""
    if hasattr(corpus, "story_of") and subject != "average":
        story = corpus.story_of(subject)
        story = written(story) if study.story.written else story
    return story.grouped(study.design.rows)


def check_names(study: Study, corpus: Corpus) -> None:
    """Hold the study's controls and their options against what there is, before anything is made.

    Raises
    ------
    SettingsError : a control or an option is unknown
    """
    check_controls(_control_names(study), study.features.options, corpus)


def make_controls(
    study: Study, story: Story, corpus: Corpus, tables: Mapping[str, Features] | None = None
) -> dict[str, Features]:
    """Make the controls a study names, and those its confounds need.

    Parameters
    ----------
    story : grouped into the study's rows
    corpus : for measures that it has of its words
    tables : the models' layers, for controls that are made from them
    """
    made = [make_control(study, story, name, corpus, tables) for name in _control_names(study)]
    return {one.name: one for one in made}


def make_control(
    study: Study,
    story: Story,
    name: str,
    corpus: Corpus | None = None,
    tables: Mapping[str, Features] | None = None,
) -> Features:
    """Make one control, by its name or by the function of one's own that makes it."""
    options, base = study.features.options, study.base
    if ":" not in name:
        return control(name, story, options, base, tables, corpus)
    short = name.rsplit(":", 1)[-1]
    make = load_object(name, Path(study.folder))
    made: Features = make(story, **bind(short, make, options.get(name, {}), base, tables, corpus))
    return dataclasses.replace(made, name=short)  # whatever the function calls it


def _control_names(study: Study) -> list[str]:
    """List the controls that a study fits, removes, or puts into bands."""
    chosen = study.protocol.confounds
    confounds = study.to_protocol().confounds if chosen is None else chosen
    return list(dict.fromkeys((*study.features.controls, *confounds, *band_controls(study))))


def band_controls(study: Study) -> list[str]:
    """List the controls in the bands of a partition; surprisal and entropy come with the model."""
    bands = study.partition.bands.values()
    return [name for names in bands for name in names if name not in ("surprisal", "entropy")]


def read_subject(corpus: Corpus, subject: str) -> Runs:
    """Read every run of one subject."""
    return [corpus.recording(subject, run) for run in corpus.runs(subject)]  # type: ignore[return-value]  # one kind a corpus


def everyone(study: Study, corpus: Corpus, subjects: Sequence[str]) -> Iterator[tuple[str, Runs]]:
    """Read one subject after the other, and their average at the end if the study wants it."""
    wanted = study.recording.average and len(subjects) > 1
    if wanted and hasattr(corpus, "story_of"):
        raise SettingsError(
            "recording.average: every subject read at a pace of their own, so no mean over subjects exists."
        )
    by_run: dict[str, list[Recording]] = {}
    for subject in subjects:
        recordings = read_subject(corpus, subject)
        if wanted:
            for recording in recordings:
                if isinstance(recording, Responses):
                    raise SettingsError(
                        "recording.average is for recordings with scans; this corpus has a row a sentence."
                    )
                by_run.setdefault(recording.run, []).append(recording)
        yield subject, recordings
    if wanted:
        yield "average", [average(runs) for runs in by_run.values()]


def align_subject(study: Study, story: Story, tables: Mapping[str, Features], recordings: Runs) -> Design:
    """Align one subject's recordings as the study's [design] says; `story` is already grouped into its rows."""
    d = study.design
    timed = [r for r in recordings if isinstance(r, Recording)]
    if len(timed) < len(recordings):
        if d.rows == "scans":
            raise SettingsError(
                'design.rows is "scans", but this corpus has no scans: its rows are sentences.'
            )
        return align_responses(story, tables, [r for r in recordings if isinstance(r, Responses)])
    if d.rows != "scans":
        return align_sentences(story, tables, timed, d.delays, d.short)
    if d.response == "fir":
        usual = candidate_delays(timed[0].tr, 2.0, 8.0)
        response: Delays | HRF = Delays(tuple(d.delays) if d.delays else usual)
    else:
        response = HRF(load_object(d.response, Path(study.folder)) if ":" in d.response else d.response)
    return align(story, tables, timed, response, d.short, d.trim)


def sample(corpus: Corpus, subjects: Sequence[str], n: int = 8) -> list[tuple[str, str]]:
    """Pick recordings that speak for a corpus's clock: a few (subject, run), spread over subjects and runs."""
    left = {subject: list(corpus.runs(subject)) for subject in subjects}
    used: Counter[str] = Counter()
    out: list[tuple[str, str]] = []
    while len(out) < n and any(left.values()):
        for subject in [s for s in subjects if left[s]][: n - len(out)]:
            run = min(left[subject], key=lambda name: used[name])
            left[subject].remove(run)
            used[run] += 1
            out.append((subject, run))
    return out


def sampled_lag(study: Study, corpus: Corpus, story: Story, subjects: Sequence[str]) -> Lag | None:
    """Look at a few recordings of a corpus: do responses come when the words say they should?"""
    pairs = []
    for subject, run in sample(corpus, subjects):
        recording = corpus.recording(subject, run)
        if isinstance(recording, Recording):
            pairs.append((own_story(study, corpus, story, subject), recording))
    return find_lag(pairs)


def refuse(lag: Lag) -> None:
    """Stop a study whose clock is off.

    Raises
    ------
    AlignmentError : always, with the lag that fits
    """
    raise AlignmentError(
        f'{lag.sentence} If the clock is right all the same, say so with recording.clock = "report".'
    )
