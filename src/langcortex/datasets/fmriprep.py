"""Any corpus preprocessed by fMRIPrep, or by another pipeline that names its outputs the BIDS way.

Names are read entity by entity, so both generations of fMRIPrep's names are found: ``…_hemi-L_space-S_bold.func.gii``
and the older ``…_space-S_hemi-L.func.gii``, ``…_desc-confounds_timeseries.tsv`` and the older ``…_regressors.tsv``.
Sources: fMRIPrep's documentation ("Outputs"), the BIDS specification, and the file names of Narratives (ds002345).
CIFTI (``.dtseries.nii``) is not read.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from langcortex.brain.space import Space
from langcortex.datasets import bids
from langcortex.datasets.bids import BidsFile
from langcortex.datasets.bids_images import (
    KINDS,
    describe_image,
    find_images,
    is_image,
    keep_space,
    no_images,
    run_name,
    varying_entities,
)
from langcortex.datasets.corpus import CorpusOnDisk, Reading, RunFile, select_names
from langcortex.errors import RecordingError, SettingsError, StoryError
from langcortex.paths import expand_pattern, natural_key
from langcortex.stimulus.story import Story, read_story

OWN_SPACES = ("T1w", "func", "fsnative")  # every subject's own: "func" is a name without space
TOLERANCE = 0.05  # seconds within which two subjects' words count as heard at the same time


def corpus(
    path: Path,
    reading: Reading,
    task: str | Sequence[str] = "",
    space: str = "",
    res: str = "",
    desc: str = "preproc",
    derivatives: str = "",
    kind: str = "volume",
    words: str = "events",
    session: str | Sequence[str] = "",
    tier: int | str = 0,
) -> PreppedCorpus:
    """Open a folder of preprocessed images.

    Parameters
    ----------
    path : the BIDS dataset, or the folder of derivatives itself
    reading : what the study asks of recordings; confounds are regressed out only if the study names their columns
    task : one or several; needed where there are several
    space : e.g. "MNI152NLin2009cAsym", "T1w", or "func" for images whose name has no space; needed where there are several
    res : the resolution (of a surface, the density); needed where there are several
    desc : the description, e.g. "preproc"; surfaces may have none
    derivatives : the folder of derivatives, relative to `path`; found when empty
    kind : "volume" (.nii, .nii.gz) or "surface" (.func.gii of both hemispheres)
    words : "events" where the dataset's events.tsv hold the words, or a pattern of story files (see
        `langcortex.stimulus.story.read_story`) with ``{run}`` for the run's name or its task, and perhaps ``{subject}``
    session : one or several; all when empty
    tier : the tier of a TextGrid

    Raises
    ------
    SettingsError : a choice is left open, or names nothing
    RecordingError : there are no such images
    """
    if kind not in KINDS:
        raise SettingsError(
            f"data.options.kind is {' or '.join(KINDS)}, not '{kind}'. CIFTI (.dtseries.nii) is not read."
        )
    folder, names = find_images(path, derivatives)
    images = [named for named in names if is_image(named, kind)]
    if not images:
        raise RecordingError(no_images(folder, names, kind))
    images = keep_space(images, "task", task, "task")
    images = describe_image(images, desc, kind)
    images = keep_space(images, "space", space, "space")
    images = keep_space(images, "res" if kind == "volume" else "den", res, "res")
    if session:
        images = keep_space(images, "ses", session, "session")
    return PreppedCorpus(path, reading, folder, tuple(images), tuple(names), words, tier)


@dataclass(frozen=True, eq=False)
class PreppedCorpus(CorpusOnDisk):
    """Preprocessed images that one study has chosen.

    Runs are called "task-X", with the session, the run number and other entities that vary within a subject:
    "ses-2_task-X_run-1".

    Attributes
    ----------
    path : the dataset
    reading : what the study asks
    derivatives : the folder of the images
    images : the images, one a run (two where they are hemispheres)
    names : everything listed beside them
    words, tier : see `corpus`
    """

    path: Path
    reading: Reading
    derivatives: Path
    images: tuple[BidsFile, ...] = field(repr=False)
    names: tuple[BidsFile, ...] = field(repr=False)
    words: str = "events"
    tier: int | str = 0

    def subjects(self) -> list[str]:
        """List the subjects that have images, e.g. "01"; a study may also write "sub-01"."""
        wanted = self.reading.subjects
        named = None if wanted is None else [name.removeprefix("sub-") for name in wanted]
        return select_names(named, sorted(self._runs, key=natural_key), self.derivatives)

    def files(self, subject: str) -> dict[str, RunFile]:
        """Find the runs of one subject, with their brain masks, and their confounds if the study names columns."""
        if subject not in self._runs:
            raise RecordingError(
                f"Subject '{subject}' was not found in {self.derivatives}. Found: {', '.join(self._runs)}."
            )
        return {run: self._run_file(subject, run, images) for run, images in self._runs[subject].items()}

    def story(self) -> Story:
        """Read the words, from the events or from the story files.

        Raises
        ------
        StoryError : there are none, or two subjects heard different words in one run
        """
        return self._story

    def space_of(self, subject: str) -> Space:
        """Give the voxels of a subject's runs: everyone's, or their own where each brain has its own space."""
        if (self.images[0].of("space") or "func") not in OWN_SPACES:
            return super().space_of(subject)
        if subject not in self._own_spaces:
            self._own_spaces[subject] = self.space_over(list(self.files(subject).values()))
        return self._own_spaces[subject]

    def citation(self) -> str:
        """Say what to cite: the dataset as it asks for, and fMRIPrep where it made the images."""
        said = bids.description(self._raw[0])
        out = [str(said[key]) for key in ("HowToAcknowledge", "DatasetDOI") if said.get(key)][:1]
        made = bids.description(self.derivatives)
        by = str(made.get("GeneratedBy") or made.get("PipelineDescription") or "fMRIPrep")
        if "fmriprep" in by.lower():
            out.append(
                "Esteban, O., et al. (2019). fMRIPrep: a robust preprocessing pipeline for functional MRI. "
                "Nature Methods, 16, 111–116. doi:10.1038/s41592-018-0235-4"
            )
        return (
            " ".join(out)
            or f"{self.path.name}: its dataset_description.json says nothing about how to cite it."
        )

    def licence(self) -> str:
        """Say what the dataset says of its licence."""
        said = bids.description(self._raw[0]).get("License")
        return (
            f"{said}, says dataset_description.json."
            if said
            else "dataset_description.json names no licence."
        )

    # which image is which run

    @cached_property
    def _runs(self) -> dict[str, dict[str, list[BidsFile]]]:
        """Group the images: subject → run → one volume, or the left and the right hemisphere."""
        varying = varying_entities(self.images)
        out: dict[str, dict[str, list[BidsFile]]] = {}
        for image in self.images:
            runs = out.setdefault(image.of("sub"), {})
            runs.setdefault(run_name(image, varying), []).append(image)
        return {
            subject: {
                run: sorted(runs[run], key=lambda i: i.of("hemi")) for run in sorted(runs, key=natural_key)
            }
            for subject, runs in out.items()
        }

    def _run_file(self, subject: str, run: str, images: list[BidsFile]) -> RunFile:
        first, beside = images[0], self._by_subject.get(subject, [])
        wanted = 1 if is_image(first, "volume") else 2
        if len({i.of("hemi") for i in images}) < wanted:
            raise RecordingError(f"Run '{run}' of subject '{subject}' has one hemisphere only: {first.path}.")
        if len(images) > wanted:
            raise RecordingError(
                f"Two images stand for run '{run}' of subject '{subject}': {first.path.name} and {images[1].path.name}. "
                "Choose with data.options (desc, res or session), or remove one."
            )
        masks = [n for n in beside if n.suffix == "mask" and n.of("desc") == "brain" and n.of("task")]
        mask = bids.companion(first, masks, ("task", "space", "ses", "run")) if wanted == 1 else None
        return RunFile(
            first.path if wanted == 1 else (first.path, images[1].path),
            stimulus_onset=self._began_after(subject, run, first),
            confounds=self._confounds(subject, run, first)
            if self.reading.cleaning.get("confounds")
            else None,
            mask=mask.path if mask else None,
        )

    @cached_property
    def _by_subject(self) -> dict[str, list[BidsFile]]:
        return _grouped(self.names)

    def _confounds(self, subject: str, run: str, image: BidsFile) -> Path:
        tables = [
            n
            for n in self._by_subject[subject]
            if n.of("desc") == "confounds"
            and n.suffix in ("timeseries", "regressors")
            and n.extension == ".tsv"
        ]
        found = bids.companion(image, tables, ("task", "ses", "run"))
        if found is None:
            raise RecordingError(
                f"Run '{run}' of subject '{subject}' has no desc-confounds table beside {image.path}. "
                "Fetch it, or leave the confounds out of the study."
            )
        return found.path

    # when the story began

    def _began_after(self, subject: str, run: str, image: BidsFile) -> float:
        shift = self._shifts.get((subject, run), 0.0)
        if self.reading.stimulus_onset is not None:
            if shift:
                raise SettingsError(
                    f"The words of run '{run}' come {shift:.2f} s later for subject '{subject}' than for others, so "
                    "recording.stimulus_onset cannot be true for all. Leave it out, or run the subjects apart."
                )
            return 0.0  # the study's number is taken instead
        if self.words == "events":
            return shift
        events = self._events_of(image)
        onset = None if events is None else bids.stimulus_onset_of(bids.read_events(events), events)
        if onset is None or np.isnan(onset):
            raise RecordingError(
                f"Nothing says when the story began in run '{run}' of subject '{subject}': "
                f"{f'{events} has no event with a stim_file' if events else 'it has no events.tsv'}. "
                "Set recording.stimulus_onset (0 if the words are on the scanner's clock)."
            )
        return onset + shift

    def _events_of(self, image: BidsFile) -> Path | None:
        by_subject = self._events
        among = by_subject.get(image.of("sub"), []) + by_subject.get("", [])
        found = bids.companion(image, among, ("task",))
        return found.path if found else None

    @cached_property
    def _events(self) -> dict[str, list[BidsFile]]:
        return _grouped(self._raw[1])

    @cached_property
    def _raw(self) -> tuple[Path, list[BidsFile]]:
        """Find the raw dataset's folder and its tables of events: `path`, or up to two folders above it."""
        top = self.path.absolute()
        for folder in (top, *top.parents[:2]):
            names = self.names if folder == self.derivatives.absolute() else bids.list_entities(folder)
            events = [n for n in names if n.suffix == "events" and n.extension == ".tsv"]
            if events:
                return folder, events
        return self.path, []

    # the words

    @cached_property
    def _story(self) -> Story:
        first: dict[str, tuple[str, BidsFile]] = {}
        for subject in self.subjects():
            for run, images in self._runs[subject].items():
                first.setdefault(run, (subject, images[0]))
        runs = sorted(first, key=natural_key)
        name = self.path.name
        if self.words == "events":
            tables = {run: self._table(run, *first[run]) for run in runs}
            return _as_story(tables, name, self.reading.sentences)
        files = {run: self._word_file(run, *first[run]) for run in runs}
        if len(set(files.values())) == 1 < len(runs) and "{run}" not in self.words:
            files = {"words": files[runs[0]]}  # one table, whose column says which run
        story = read_story(files, name, self.reading.sentences, self.tier)
        missing = next((run for run in runs if run not in story.runs), None)
        if missing is not None:
            raise StoryError(
                f"{files[next(iter(files))]} has no words of run '{missing}'. Its runs are: {', '.join(story.runs)}."
            )
        return story

    @cached_property
    def _shifts(self) -> Mapping[tuple[str, str], float]:
        """Seconds by which a subject heard the words later than the first subject did, who gives the story's times."""
        if self.words != "events" and "{subject}" not in self.words:
            return {}
        first: dict[str, tuple[str, np.ndarray, np.ndarray]] = {}
        out: dict[tuple[str, str], float] = {}
        for subject in self.subjects():
            for run, images in self._runs[subject].items():
                text, onset = self._heard(run, subject, images[0])
                other, words, times = first.setdefault(run, (subject, text, onset))
                out[subject, run] = _shift(run, (other, words, times), (subject, text, onset))
        return out

    def _heard(self, run: str, subject: str, image: BidsFile) -> tuple[np.ndarray, np.ndarray]:
        if self.words == "events":
            table = self._table(run, subject, image)
            return table["word"].to_numpy(), table["onset"].to_numpy()
        story = read_story({run: self._word_file(run, subject, image)}, sentences="pauses", tier=self.tier)
        return story.text, story.onset

    def _table(self, run: str, subject: str, image: BidsFile) -> pd.DataFrame:
        path = self._events_of(image)
        if path is None:
            raise StoryError(
                f"Run '{run}' of subject '{subject}' has no events.tsv in {self._raw[0]}. "
                "Fetch the raw dataset's, or name story files with data.options.words."
            )
        events = bids.read_events(path)
        words = bids.words_among(events)
        if words is None:
            raise StoryError(
                f"{path} holds no words (its columns are: {', '.join(events.columns)}). "
                'Name story files with data.options.words, e.g. words = "stimuli/{run}.TextGrid".'
            )
        return words

    def _word_file(self, run: str, subject: str, image: BidsFile) -> Path:
        pattern = self.words.replace("{subject}", subject)
        if "{run}" not in pattern and "*" not in pattern:
            return self.path / Path(pattern).expanduser()
        found = expand_pattern(pattern, self.path, StoryError)
        task = image.of("task")
        for label in (run, run.removeprefix("task-"), f"task-{task}", task):
            if label in found:
                return found[label]
        raise StoryError(
            f"No story file '{self.words}' in {self.path} stands for run '{run}': {{run}} must be '{run}' or '{task}'. "
            f"Found: {', '.join(list(found)[:12]) or 'none'}."
        )

    @cached_property
    def _own_spaces(self) -> dict[str, Space]:
        return {}


def _grouped(names: Iterable[BidsFile]) -> dict[str, list[BidsFile]]:
    out: dict[str, list[BidsFile]] = {}
    for named in names:
        out.setdefault(named.of("sub"), []).append(named)
    return out


def _shift(
    run: str, first: tuple[str, np.ndarray, np.ndarray], other: tuple[str, np.ndarray, np.ndarray]
) -> float:
    """Say how many seconds later a subject heard the same words; 0 where it is less than `TOLERANCE`."""
    (a, words, onset), (b, text, times) = first, other
    unlike = len(words) != len(text) or bool((words != text).any())
    if unlike:
        n = next(
            (i for i, (v, w) in enumerate(zip(words, text, strict=False)) if v != w),
            min(len(words), len(text)),
        )
        raise StoryError(
            f"Subjects '{a}' and '{b}' heard different words in run '{run}' ({len(words)} and {len(text)}; they differ from "
            f"word {n + 1} on). Study them apart with recording.subjects, or take only the task or session that all heard."
        )
    late = times - onset
    shift = float(np.median(late))
    if not np.allclose(late, shift, atol=TOLERANCE, rtol=0):
        raise StoryError(
            f"Subjects '{a}' and '{b}' heard the words of run '{run}' at different paces (up to {np.abs(late - shift).max():.2f} s "
            "apart), so they share no clock. Study them apart with recording.subjects."
        )
    return shift if abs(shift) > TOLERANCE else 0.0


def _as_story(tables: Mapping[str, pd.DataFrame], name: str, sentences: str) -> Story:
    """Read events that are words as if each run's were a story file of its own."""
    with tempfile.TemporaryDirectory() as folder:
        files = {}
        for i, (run, table) in enumerate(tables.items()):
            files[run] = Path(folder) / f"{i}.tsv"
            rows = [table.columns.tolist(), *table.astype(object).to_numpy().tolist()]
            lines = ["\t".join(repr(c) if isinstance(c, float) else str(c) for c in row) for row in rows]
            files[run].write_text("\n".join(lines) + "\n", encoding="utf-8")
        return read_story(files, name, sentences)
