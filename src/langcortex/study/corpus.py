"""From settings to the corpus: regions, atlas, mask, protocol and words of a study."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pandas as pd

from langcortex.brain.regions import Atlas, regions_in_folder
from langcortex.datasets import CORPORA, Corpus, FilesCorpus, Reading, open_named
from langcortex.encoding.protocol import PUBLISHED, Protocol
from langcortex.errors import SettingsError, StoryError
from langcortex.paths import expand_pattern, require_file
from langcortex.stimulus.story import Story
from langcortex.stimulus.written_text import add_sentence_marks, align_written_text
from langcortex.study.settings import RecordingSettings, Study
from langcortex.study.settings_file import load_object


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
    r, replication = study.recording, study.protocol.preset == PUBLISHED
    names = {"detrend": "detrend", "high_pass": "high_pass", "standardise": "standardise"}
    cleaning = {ours: getattr(r, key) for key, ours in names.items() if key in r.model_fields_set}
    if "high_pass" in cleaning:
        cleaning["high_pass"] = cleaning["high_pass"] or None
    if r.confound_columns:
        cleaning["confounds"] = tuple(r.confound_columns)
    if replication and r.targets == "parcels":
        raise SettingsError(
            f"The preset '{PUBLISHED}' chooses voxels, so recording.targets cannot be \"parcels\". Leave it out."
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
        regions=region_files(study),
        atlas=make_atlas(study),
        parcels=r.targets == "parcels",
    )


def region_files(study: Study) -> dict[str, Path | list[str]]:
    """Find the masks and columns that a study calls regions."""
    given = study.recording.regions
    if isinstance(given, str):
        return dict(regions_in_folder(_path(study, given)))
    return {name: where if isinstance(where, list) else _path(study, where) for name, where in given.items()}


def make_atlas(study: Study) -> Atlas | None:
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


def make_protocol(study: Study, corpus: Corpus) -> Protocol:
    """Give the study's protocol; a corpus with a story of its own for testing is tested on it unless the study says how to fold."""
    protocol = study.to_protocol()
    held_out = tuple(getattr(corpus, "test_runs", ()))
    said = {"test_runs", "folds"} & study.protocol.model_fields_set
    if not held_out or said or protocol.name != "rigorous":
        return protocol
    return dataclasses.replace(protocol, test_runs=held_out)


def corpus_remarks(corpus: Corpus) -> list[str]:
    """Gather what a corpus says was left out or is uncertain."""
    return list(corpus.remarks()) if hasattr(corpus, "remarks") else []


def corpus_source(corpus: Corpus) -> dict[str, str]:
    """Gather what to cite of a corpus, and its licence."""
    return {name: str(getattr(corpus, name)()) for name in ("citation", "licence") if hasattr(corpus, name)}


def read_words(study: Study, corpus: Corpus) -> tuple[Story, pd.DataFrame | None]:
    """Read the story as the models are to read it.

    Returns
    -------
    story : its words are tied to the labels that were timed
    unmatched : with ``story.text``, what did not align (`langcortex.stimulus.written_text.align_written_text`)
    """
    story, unmatched = corpus.story(), None
    if study.story.text:
        if hasattr(corpus, "story_of"):
            raise SettingsError(
                f"The corpus '{study.data.corpus}' brings its own text; leave story.text out."
            )
        files = expand_pattern(study.story.text, study.base, StoryError)
        texts = {run: _text(path) for run, path in files.items()}
        if list(texts) and not set(texts) & set(story.runs) and len(texts) == len(story.runs) == 1:
            texts = {story.runs[0]: next(iter(texts.values()))}
        story, unmatched = align_written_text(story, texts)
    return (add_sentence_marks(story) if study.story.written else story), unmatched


def _text(path: Path) -> str:
    require_file(path, StoryError, "text of the story")
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise StoryError(f"{path} is not UTF-8 text ({error}). Save it as UTF-8.") from error
