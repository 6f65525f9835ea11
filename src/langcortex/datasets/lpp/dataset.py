"""Le Petit Prince: 112 people who heard one book in English, Chinese or French (OpenNeuro ds003643).

Sections of files, numbers of scans and onsets of the sound are those of version 2.0.7 of the dataset
(doi:10.18112/openneuro.ds003643.v2.0.7) and of its data descriptor (doi:10.1038/s41597-022-01625-7).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path

import pandas as pd

from langcortex.brain.space import Space
from langcortex.datasets.corpus import CorpusOnDisk, Reading, RunFile, select_subjects
from langcortex.datasets.lpp.annotation import WORDS, Annotation
from langcortex.datasets.lpp.measures import MEASURES, measure
from langcortex.datasets.lpp.words import SECTIONS
from langcortex.datasets.measures import Measure
from langcortex.errors import RecordingError, SettingsError, StoryError
from langcortex.paths import require_file
from langcortex.stimulus.story import Story

TR = 2.0
LANGUAGES = ("EN", "CN", "FR")
KINDS = ("derivatives", "raw")
# scans of each section: README of ds003643
SCANS: Mapping[tuple[str, str], tuple[int, ...]] = {
    ("EN", "derivatives"): (282, 298, 340, 303, 265, 343, 325, 292, 368),
    ("EN", "raw"): (286, 302, 344, 307, 269, 347, 329, 296, 372),
    ("CN", "derivatives"): (283, 322, 322, 307, 293, 392, 364, 293, 401),
    ("CN", "raw"): (287, 326, 326, 311, 297, 396, 368, 297, 405),
    ("FR", "derivatives"): (309, 326, 354, 315, 293, 378, 332, 294, 336),
    ("FR", "raw"): (309, 326, 354, 315, 293, 378, 332, 294, 336),
}
# (onset, duration) of the three pictures in section 1, in seconds: README of ds003643
PICTURES: Mapping[str, tuple[tuple[float, float], ...]] = {
    "EN": ((10.0, 15.0), (35.0, 20.0), (60.0, 15.0)),
    "CN": ((10.0, 15.0), (30.0, 20.0), (55.0, 15.0)),
    "FR": (),
}
# seconds from the first raw scan to the sound; for Chinese the sources contradict each other
RAW_ONSET: Mapping[str, float] = {"EN": 8.0, "FR": 0.0}
# run ids of sections 1 to 9 in version 2.0.7 → subjects
RUN_IDS: Mapping[str, Mapping[str, str]] = {
    "EN": {
        "6-14": "64 78 81-82 86 88-89 96-97 99-101 103-104 106 108-109 113",
        "7-15": "63 67 70 74 91-92 94-95",
        "8-16": "58 65 68 77 79 83",
        "9-17": "62 69 73 75 115",
        "10-18": "110",
        "14-22": "72",
        "15-23": "57",
        "6 8-15": "105",
        "6-8 10-15": "76",
        "6-8 11-16": "93",
        "6-10 13-16": "98",
        "7-9 13-18": "87",
        "7-13 17-18": "114",
        "7-14 17": "59",
        "9 11-14 19-22": "61",
        "9-10 13-19": "84",
    },
    "CN": {
        "4-12": "1-2",
        "5-13": "3 5-6 9-11 14-27 29-32",
        "6-14": "4 28 33 36-37",
        "7-15": "8",
        "8-16": "34",
        "9-17": "7",
        "5-12 14": "13",
    },
    "FR": {"1-9": "1-20 22-26 28-30"},
}


def corpus(
    path: Path,
    reading: Reading,
    language: str = "EN",
    kind: str = "derivatives",
    words: str = "auto",
    echo: int = 2,
    pictures: bool = True,
) -> LittlePrince:
    """Open Le Petit Prince.

    Parameters
    ----------
    path : the folder of the dataset, with ``annotation``, ``derivatives``, ``sub-*`` and ``participants.tsv``
    reading : how the study reads recordings
    language : "EN" (49 subjects), "CN" (35) or "FR" (28)
    kind : "derivatives", the preprocessed images on one grid, or "raw", with one grid per subject
    words : the source of words. "table": ``lpp{L}_word_information.csv``, with the sentences of
        ``lpp{L}_tree.csv``. "textgrid": the repaired TextGrids, with pause groups as sentences.
        "textgrid-raw": the labels of the TextGrids as `langcortex.stimulus.story.read_story` reads them, for
        replications. "auto": the table; for French, whose table was not checked, the TextGrids
    echo : which of the three echoes, for raw images
    pictures : regress out the three pictures shown in section 1 (English and Chinese)

    Raises
    ------
    SettingsError : an option has no such value, or `path` is no folder
    """
    options: tuple[tuple[str, object, tuple[object, ...]], ...] = (
        ("language", language, LANGUAGES),
        ("kind", kind, KINDS),
        ("words", words, ("auto", *WORDS)),
        ("echo", echo, (1, 2, 3)),
        ("pictures", pictures, (True, False)),
    )
    for name, value, allowed in options:
        if not any(value == choice and type(value) is type(choice) for choice in allowed):
            choices = ", ".join(map(str, allowed)).replace("True, False", "true, false")
            raise SettingsError(f"data.options.{name} is {value!r}; the corpus 'lpp' takes: {choices}.")
    if not path.is_dir():
        raise SettingsError(f"There is no folder {path}. Set data.path to the folder of ds003643.")
    if words == "auto":
        words = "textgrid" if language == "FR" else "table"
    return LittlePrince(path, reading, language, kind, words, echo, pictures)


@dataclass(frozen=True, eq=False)
class LittlePrince(CorpusOnDisk):
    """The corpus; a run is a section of the book.

    Attributes
    ----------
    path : the folder of the dataset
    reading : how the study reads recordings
    language, kind, words, echo, pictures : see `corpus`
    """

    path: Path
    reading: Reading
    language: str = "EN"
    kind: str = "derivatives"
    words: str = "table"
    echo: int = 2
    pictures: bool = True
    _spaces: dict[str, Space] = field(default_factory=dict, init=False, repr=False)

    def citation(self) -> str:
        """Return what to cite."""
        return (
            "Li, J., Bhattasali, S., Zhang, S., Franzluebbers, B., Luh, W.-M., Spreng, R. N., Brennan, J. R., Yang, Y., "
            "Pallier, C., & Hale, J. (2022). Le Petit Prince multilingual naturalistic fMRI corpus. Scientific Data, 9, "
            "530. doi:10.1038/s41597-022-01625-7; OpenNeuro ds003643, doi:10.18112/openneuro.ds003643.v2.0.7."
        )

    def licence(self) -> str:
        """Return the terms of use."""
        return "The data are CC0; the book's text may be under copyright in some countries."

    def subjects(self) -> list[str]:
        """List the subjects that the study names, or all of this language with nine sections, e.g. "EN057".

        Raises
        ------
        RecordingError : there is no subject, or a named subject has no images of this kind
        """
        root = self.path / "derivatives" if self.kind == "derivatives" else self.path
        if self.reading.subjects is None:
            complete = [s for s in self._images if self._is_complete(s)]
            if not complete and self._images:
                raise RecordingError(
                    f"No {self.language} subject in {root} has all nine sections. Name the subjects to use in recording.subjects."
                )
            return select_subjects(None, complete, root)
        names = [name.removeprefix("sub-") for name in self.reading.subjects]
        for name in names:
            if name in _run_ids(self.language) and not self._images.get(name):
                folder = root / f"sub-{name}"
                raise RecordingError(f"Subject '{name}' has no images in {folder}. Run: datalad get {folder}")
        return select_subjects(names, list(self._images), root)

    def remarks(self) -> list[str]:
        """List the subjects who are left out because sections are missing."""
        if self.reading.subjects is not None:
            return []
        partial = [s for s in self._images if not self._is_complete(s)]
        return [f"Subjects without all nine sections are left out: {', '.join(partial)}."] if partial else []

    def files(self, subject: str) -> dict[str, RunFile]:
        """Find the images of a subject: section → file, its number of scans, and when the sound began.

        Section k is the k-th of the subject's run ids, which are the numbers of the scanner. The ids of version 2.0.7
        are listed here, so a partly downloaded subject has the sections that are here; the ids of a subject who was
        not in that version are ranked, which needs all nine.

        Raises
        ------
        RecordingError : the subject has no images, or their sections are unknown
        SettingsError : raw Chinese images without ``recording.stimulus_onset``
        """
        subject = subject.removeprefix("sub-")
        sections = self._sections(subject)
        if not sections:
            raise RecordingError(
                f"Subject '{subject}' has no images of kind \"{self.kind}\" in {self.path}. Fetch them, or choose among: "
                f"{', '.join(list(self._images)[:12]) or 'none'}."
            )
        scans = SCANS[self.language, self.kind]
        return {
            run: RunFile(
                sections[run],
                stimulus_onset=self._sound_onset(),
                tr=TR,
                events=PICTURES[self.language] if self.pictures and k == 0 else (),
                scans=scans[k],
            )
            for k, run in enumerate(SECTIONS)
            if run in sections
        }

    def space_of(self, subject: str) -> Space:
        """Return the voxels of a subject's runs: those of all subjects, but the subject's own for raw images."""
        if self.kind == "derivatives":
            return super().space_of(subject)
        subject = subject.removeprefix("sub-")
        if subject not in self._spaces:
            self._spaces[subject] = self.space_over(list(self.files(subject).values()))
        return self._spaces[subject]

    def story(self) -> Story:
        """Read the words, see `langcortex.datasets.lpp.annotation.Annotation`; the sections are the runs."""
        return self.annotation.story

    @cached_property
    def annotation(self) -> Annotation:
        """The annotation files: words, repairs, trees, dependencies, coreference, prosody."""
        folder = self.path / "annotation" / self.language
        return Annotation(folder, self.language, self.words, self.reading.sentences)

    def measures(self) -> list[str]:
        """List the names of measures, for `measure`."""
        return list(MEASURES)

    def measure(self, name: str) -> Measure:
        """Return a measure of each word, see `langcortex.datasets.lpp.measures`."""
        return measure(self.annotation, name)

    def wav(self, section: str) -> Path:
        """Find the sound file of a section, e.g. "section3"."""
        if section not in SECTIONS:
            raise StoryError(f"There is no '{section}'. The sections are {SECTIONS[0]} to {SECTIONS[-1]}.")
        separator = "-" if self.language == "EN" else "_"
        number = section.removeprefix("section")
        path = self.path / "stimuli" / f"task-lpp{self.language}_section{separator}{number}.wav"
        return require_file(path, StoryError, "sound file")

    def participants(self) -> pd.DataFrame:
        """Read ``participants.tsv``: the participants of all three languages, indexed by subject, e.g. "EN057".

        Returns
        -------
        (112,) age, sex, correct_quiz_questions, total_quiz_questions; NaN for n/a (there was no French quiz)
        """
        path = require_file(self.path / "participants.tsv", RecordingError, "table of participants")
        try:
            table = pd.read_csv(
                path, sep="\t", encoding="utf-8-sig", keep_default_na=False, na_values=["n/a"]
            )
        except ValueError as error:  # not text, or no table
            raise RecordingError(f"{path} cannot be read as a table ({error}). Fetch it again.") from error
        if "participant_id" not in table:
            raise RecordingError(f"{path} has no column 'participant_id'. Fetch it again.")
        table.index = pd.Index(
            table.pop("participant_id").astype(str).str.removeprefix("sub-"), name="subject"
        )
        if table.index.has_duplicates:
            raise RecordingError(
                f"{path} has two rows for '{table.index[table.index.duplicated()][0]}'. Fetch it again."
            )
        return table

    @cached_property
    def _derivatives(self) -> dict[str, dict[int, Path]]:
        """List the preprocessed images: subject → run id → file."""
        name = rf"{{sub}}_task-lpp{self.language}_run-(\d+)_space-MNIColin27_desc-preproc_bold\.nii(\.gz)?"
        return _list_images(self.path / "derivatives", self.language, name)

    @cached_property
    def _images(self) -> dict[str, dict[int, Path]]:
        if self.kind == "derivatives":
            return self._derivatives
        name = rf"{{sub}}_task-lpp{self.language}_run-(\d+)_echo-{self.echo}_bold\.nii(\.gz)?"
        return _list_images(self.path, self.language, name)

    def _sections(self, subject: str) -> dict[str, Path]:
        """Map the sections to the images of a subject."""
        images = self._images.get(subject, {})
        if not images:
            return {}
        ids = _run_ids(self.language).get(subject) or self._ranked_ids(subject)
        unknown = sorted(set(images) - set(ids)) if self.kind == "derivatives" else []
        if unknown:
            raise self._section_error(subject, images, f"run {unknown[0]} is not one of theirs")
        return {run: images[i] for run, i in zip(SECTIONS, ids, strict=True) if i in images}

    def _ranked_ids(self, subject: str) -> list[int]:
        """Rank the run ids of a subject who was not in version 2.0.7."""
        ids = sorted(self._derivatives.get(subject) or self._images.get(subject, {}))
        if len(ids) != len(SECTIONS):
            raise self._section_error(subject, ids, "nine are needed to rank them")
        return ids

    def _section_error(self, subject: str, ids: Iterable[int], reason: str) -> RecordingError:
        runs = ", ".join(map(str, sorted(ids)))
        return RecordingError(
            f"Subject '{subject}' has the runs {runs} in {self.path}: {reason}, so the sections of the runs are unknown. "
            "Fetch the subject's folder again."
        )

    def _is_complete(self, subject: str) -> bool:
        is_listed = subject in _run_ids(self.language)
        runs = self._images[subject] if is_listed else self._derivatives.get(subject, self._images[subject])
        return len(runs) >= len(SECTIONS) and len(self._sections(subject)) == len(SECTIONS)

    def _sound_onset(self) -> float:
        if self.kind == "derivatives":
            return 0.0
        if self.language not in RAW_ONSET:
            if self.reading.stimulus_onset is None:
                raise SettingsError(
                    "The onset of the sound in the raw Chinese runs is not known: the README of the dataset says both 0 s and 8 s after "
                    'the first scan, its paper 8 s. Set recording.stimulus_onset, or use kind = "derivatives".'
                )
            return 0.0
        return RAW_ONSET[self.language]


@cache
def _run_ids(language: str) -> dict[str, tuple[int, ...]]:
    """Return the run ids of sections 1 to 9 in version 2.0.7: subject → ids."""
    return {
        f"{language}{number:03d}": tuple(_expand_ranges(ids))
        for ids, numbers in RUN_IDS[language].items()
        for number in _expand_ranges(numbers)
    }


def _expand_ranges(ranges: str) -> list[int]:
    """Return the numbers of ranges.

    >>> _expand_ranges("7-9 17")
    [7, 8, 9, 17]
    """
    ends = [part.split("-") for part in ranges.split()]
    return [n for part in ends for n in range(int(part[0]), int(part[-1]) + 1)]


def _list_images(folder: Path, language: str, pattern: str) -> dict[str, dict[int, Path]]:
    """List the images whose names match a pattern: subject → run id → file; dangling links are included."""
    by_subject: dict[str, dict[int, Path]] = {}
    for name in sorted(_names(folder)):
        if not re.fullmatch(rf"sub-{language}\d{{3}}", name):
            continue
        images: dict[int, Path] = {}
        for file in sorted(_names(folder / name / "func")):
            match = re.fullmatch(pattern.replace("{sub}", name), file)
            if match is None:
                continue
            run = int(match.group(1))
            if run in images:
                raise RecordingError(
                    f"Two files are run {run} of subject '{name[4:]}': {images[run].name} "
                    f"and {file} in {folder / name / 'func'}. Remove one."
                )
            images[run] = folder / name / "func" / file
        if images:
            by_subject[name.removeprefix("sub-")] = images
    return by_subject


def _names(folder: Path) -> list[str]:
    if not folder.is_dir():
        return []
    try:
        with os.scandir(folder) as entries:
            return [entry.name for entry in entries]
    except OSError as error:
        raise RecordingError(f"The folder {folder} cannot be listed ({error}).") from error
