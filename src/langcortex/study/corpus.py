"""From settings to the corpus: regions, atlas, mask, protocol and words of a study."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pandas as pd

from langcortex.brain.regions import Atlas, find_region_masks
from langcortex.datasets import CORPORA, Corpus, FilesCorpus, Reading, open_named
from langcortex.datasets.corpus import describe_missing_runs
from langcortex.encoding.protocol import PUBLISHED, Protocol
from langcortex.errors import LangcortexError, SettingsError, StoryError
from langcortex.paths import expand_pattern, require_file
from langcortex.stimulus.story import Story
from langcortex.stimulus.written_text import add_sentence_marks, align_written_text
from langcortex.study.settings import RecordingSettings, Study
from langcortex.study.user_code import describe_error, load_object

OWN_WORDS = ("files", "fmriprep", "alice", "lebel")  # corpora whose labels are read by the study's settings


def open_corpus(study: Study) -> Corpus:
    """Open the corpus that a study names."""
    name = study.data.corpus
    if name in CORPORA:
        ignored = _ignored(study) or _ignored_words(study)
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
        ignored = _ignored_words(study)
        if ignored:
            raise SettingsError(
                f"{ignored} is for stories that langcortex reads; your own corpus reads its words. Leave it out."
            )
        corpus = _call_corpus(study, name)
        if not isinstance(corpus, Corpus):
            raise SettingsError(
                f"'{name}' must return an object with subjects(), story(), runs(subject) and recording(subject, run)."
            )
        return corpus
    for table, what in ((study.story, "story"), (study.recording, "recording")):
        if not table.files:
            raise SettingsError(f"The study does not say where the {what} is. Set {what}.files.")
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


def _call_corpus(study: Study, name: str) -> Any:
    """Call the user's function that returns a corpus; its errors become one sentence."""
    function = load_object(name, study)
    try:
        return function(study.base, **study.data.options)
    except LangcortexError:
        raise
    except Exception as error:  # a user's function raises errors of any kind
        raise SettingsError(f"'{name}' cannot open the corpus ({describe_error(error)}).") from error


def _refuse_regions(study: Study) -> None:
    """Refuse settings of regions for a user's corpus, which has its own."""
    defaults = RecordingSettings()
    for key in ("regions", "atlas", "targets"):
        if getattr(study.recording, key) != getattr(defaults, key):
            raise SettingsError(
                f"recording.{key} is for corpora that langcortex reads; your own corpus defines regions in the Space of its recordings. Leave it out."
            )


def _ignored(study: Study) -> str:
    """Return a setting of [story] or [recording] that only a corpus of files uses; empty where there is none."""
    for what, keys in (
        ("story", ("files", "tier", "accept_truncated")),
        ("recording", ("files", "runs", "columns", "confounds")),
    ):
        names = getattr(study, what).model_fields_set
        for key in keys:
            if key in names:
                return f"{what}.{key}"
    return ""


def _ignored_words(study: Study) -> str:
    """Return a setting of words that a corpus with words of its own does not use; empty where there is none."""
    names = study.story.model_fields_set if study.data.corpus not in OWN_WORDS else ()
    keys = ("pauses",) if study.story.text else ("pauses", "language")
    return next((f"story.{key}" for key in keys if key in names), "")


def _reading(study: Study) -> Reading:
    """Collect what the study says about every recording."""
    r, replication = study.recording, study.protocol.preset == PUBLISHED
    names = {"detrend": "detrend", "high_pass": "high_pass", "standardise": "standardise"}
    cleaning = {name: getattr(r, key) for key, name in names.items() if key in r.model_fields_set}
    if "high_pass" in cleaning:
        cleaning["high_pass"] = cleaning["high_pass"] or None
    if r.confound_columns:
        cleaning["confounds"] = tuple(r.confound_columns)
    if replication and r.targets == "parcels":
        raise SettingsError(
            f"The preset '{PUBLISHED}' chooses voxels, so recording.targets cannot be \"parcels\". Leave it out."
        )
    if replication:
        # the recipe scales runs itself, and does nothing else
        cleaning = {"detrend": False, "high_pass": None, "standardise": False}
    sentences = study.story.sentences
    return Reading(
        subjects=r.subjects,
        sentences="pauses" if replication and sentences == "auto" else sentences,
        pauses=tuple(study.story.pauses),
        language=study.story.language,
        tr=r.tr,
        stimulus_onset=r.stimulus_onset,
        reference=r.reference,
        columns=r.columns,
        mask=_mask(study, r.mask, replication),
        mask_threshold=r.mask_threshold,
        region_threshold=r.region_threshold,
        cleaning=cleaning,
        regions=region_files(study),
        atlas=make_atlas(study),
        parcels=r.targets == "parcels",
    )


def region_files(study: Study) -> dict[str, Path | list[str]]:
    """Return the mask file or the columns of each region that a study names."""
    regions = study.recording.regions
    if isinstance(regions, str):
        return dict(find_region_masks(_path(study, regions)))
    return {
        name: source if isinstance(source, list) else _path(study, source) for name, source in regions.items()
    }


def make_atlas(study: Study) -> Atlas | None:
    """Return the atlas that a study names; None where it names none."""
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
    """Return the study's protocol; a corpus with test runs is tested on them unless the study sets folds or test runs."""
    protocol = study.to_protocol()
    test_runs = tuple(getattr(corpus, "test_runs", ()))
    is_set = bool({"test_runs", "folds"} & study.protocol.model_fields_set)
    if not test_runs or is_set or protocol.name != "rigorous":
        return protocol
    return dataclasses.replace(protocol, test_runs=test_runs)


def corpus_remarks(corpus: Corpus) -> list[str]:
    """Return the sentences of a corpus about what was left out or is uncertain, and about runs that subjects lack."""
    remarks = list(corpus.remarks()) if hasattr(corpus, "remarks") else []
    runs = {subject: list(corpus.runs(subject)) for subject in corpus.subjects()}
    return remarks + describe_missing_runs(runs)


def corpus_source(corpus: Corpus) -> dict[str, str]:
    """Return the citation and the licence of a corpus, where it has them."""
    return {name: str(getattr(corpus, name)()) for name in ("citation", "licence") if hasattr(corpus, name)}


def read_words(study: Study, corpus: Corpus) -> tuple[Story, pd.DataFrame | None]:
    """Read the story as models read it.

    Returns
    -------
    story : written words, with the times of the labels
    unmatched : with ``story.text``, what did not align (`langcortex.stimulus.written_text.align_written_text`)
    """
    story, unmatched = corpus.story(), None
    if study.story.text:
        if hasattr(corpus, "story_of"):
            raise SettingsError(f"The corpus '{study.data.corpus}' has its own text; leave story.text out.")
        files = expand_pattern(study.story.text, study.base, StoryError)
        texts = {run: _text(path) for run, path in files.items()}
        if list(texts) and not set(texts) & set(story.runs) and len(texts) == len(story.runs) == 1:
            texts = {story.runs[0]: next(iter(texts.values()))}
        story, unmatched = align_written_text(story, texts, study.story.language)
    return (add_sentence_marks(story) if study.story.written else story), unmatched


def _text(path: Path) -> str:
    require_file(path, StoryError, "text of the story")
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise StoryError(f"{path} is not UTF-8 text ({error}). Save it as UTF-8.") from error
