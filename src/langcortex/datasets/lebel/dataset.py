"""LeBel et al. 2023 (OpenNeuro ds003020): nine people, up to 84 spoken stories each, responses of voxels.

The layout is that of ds003020 v3.1.0. Responses are published preprocessed, one HDF5 file per story
(``derivative/preprocessed_data/UTS01/adollshouse.hf5``), and the words are timed in TextGrids
(``derivative/TextGrids/adollshouse.TextGrid``). Times and marks are as in the authors' loader,
https://github.com/HuthLab/deep-fMRI-dataset. Voxel numbers differ between subjects: 81,126 voxels of UTS01 to
109,469 of UTS04, in no common space.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np

from langcortex.brain.formats import HDF5_BYTES, count_scans, open_hdf5
from langcortex.brain.recording import Cleaning, Recording
from langcortex.brain.space import Space
from langcortex.datasets.corpus import CorpusOnDisk, Reading, RunFile, select_subjects
from langcortex.datasets.lebel.words import read_word_tier
from langcortex.errors import RecordingError, SettingsError, StoryError
from langcortex.paths import natural_key, require_file
from langcortex.stimulus.story import Story, assemble_story
from langcortex.stimulus.textgrid import Tier

TR = 2.0  # seconds
FIRST_SCAN = 10.0  # seconds from the beginning of the sound to the first stored scan
TRIMMED = 20  # scans of respdict.json that the stored responses leave out
TEST_STORY = "wheretheressmoke"


def corpus(
    path: Path,
    reading: Reading,
    stories: Sequence[str] | None = None,
    voxels: str = "",
    test_story: str = TEST_STORY,
) -> LeBel:
    """Open ds003020.

    Parameters
    ----------
    path : the folder of the dataset, or its folder ``derivative`` (``derivatives`` in later releases)
    reading : how the study reads recordings
    stories : names, e.g. ``["adollshouse", "buck"]``; when None, all that a subject heard and that have a TextGrid
    voxels : a .npy of the voxels to read, as numbers or as one boolean per voxel, with ``{subject}`` in its name
        if there are several subjects; relative to `path`; all voxels when empty
    test_story : the story that was heard five or ten times and is used for testing only

    Raises
    ------
    RecordingError : the folder is not that of ds003020
    SettingsError : an option has the wrong type
    """
    if isinstance(stories, str) or not isinstance(voxels, str):
        raise SettingsError(
            'data.options.stories is a list of story names, and data.options.voxels the path of a .npy ("masks/{subject}.npy").'
        )
    folders = [path / "derivative", path / "derivatives", path]
    folder = next((f for f in folders if (f / "preprocessed_data").is_dir()), None)
    if folder is None:
        raise RecordingError(
            f"{path} has no folder derivative/preprocessed_data (derivatives/… in later releases). Set data.path to the folder of "
            "ds003020."
        )
    names = None if stories is None else tuple(map(str, stories))
    return LeBel(folder, reading, names, path / Path(voxels).expanduser() if voxels else None, test_story)


@dataclass(frozen=True, eq=False)
class LeBel(CorpusOnDisk):
    """The corpus; a run is a story.

    The time of row i of a response file is 2 i + 11 s after the sound began: the files leave out the ten scans
    before the sound, the first five after it began, and the last five, and must not be trimmed again. Slow drifts
    were removed before publication, so the default cleaning only scales each story to unit variance: the test
    story is a mean over repeats and varies less than a story heard once.

    Attributes
    ----------
    folder : the folder ``derivative`` or ``derivatives``
    reading : how the study reads recordings
    stories : the stories to read, or all
    voxels : a .npy of the voxels to read, perhaps with ``{subject}`` in its name, or all
    test_story : the story to test on
    """

    default_cleaning: ClassVar[Cleaning] = Cleaning(detrend=False, high_pass=None, standardise=True)

    folder: Path
    reading: Reading
    stories: tuple[str, ...] | None = None
    voxels: Path | None = None
    test_story: str = TEST_STORY

    @staticmethod
    def citation() -> str:
        """Return what to cite."""
        return (
            "LeBel, A., Wagner, L., Jain, S., et al. (2023). A natural language fMRI dataset for voxelwise encoding "
            "models. Scientific Data, 10, 555. https://doi.org/10.1038/s41597-023-02437-z "
            "(data: https://doi.org/10.18112/openneuro.ds003020.v3.1.0)"
        )

    @staticmethod
    def licence() -> str:
        """Return the licence of the data."""
        return "CC0, as dataset_description.json of ds003020 v3.1.0 says."

    @property
    def test_runs(self) -> tuple[str, ...]:
        """The runs for testing, never for training: the repeated story."""
        stories = {story for subject in self.subjects() for story in self._stories_of(subject)}
        return (self.test_story,) if self.test_story in stories else ()

    def subjects(self) -> list[str]:
        """List the subjects, from UTS01 to UTS09, that have responses."""
        return select_subjects(
            self.reading.subjects, list(self._responses), self.folder / "preprocessed_data"
        )

    def files(self, subject: str) -> dict[str, RunFile]:
        """Find the stories of one subject: story → its file."""
        return {
            story: RunFile(
                self._responses[subject][story],
                stimulus_onset=-FIRST_SCAN,
                tr=TR,
                reference=0.5,
                scans=self._published_scans[story] - TRIMMED if story in self._published_scans else None,
            )
            for story in self._stories_of(subject)
        }

    def story(self) -> Story:
        """Read the words of all stories that a subject of the study heard.

        The TextGrids have no punctuation: sentences go from pause to pause (``sp``), unless
        ``reading.sentences`` names another rule. Times are seconds since the sound began.
        """
        return self._story

    def remarks(self) -> list[str]:
        """List the stories that were left out, and what was mended in the others."""
        stories = dict.fromkeys(story for subject in self.subjects() for story in self._stories_of(subject))
        sentences = [f"Story '{story}' is left out: {why}" for story, why in self._unreadable.items()]
        if self.test_story in self._unreadable:
            sentences.append(
                f"'{self.test_story}' was the story to test on; folds over the other stories are used."
            )
        if self.stories is None:
            recorded = {story for subject in self.subjects() for story in self._responses[subject]}
            sentences += [
                f"Story '{s}' is left out: it has no TextGrid."
                for s in sorted(recorded - set(self._textgrids))
            ]
        return sentences + [remark for story in sorted(stories) for remark in self._tiers[story].remarks]

    def recording(self, subject: str, run: str) -> Recording:
        """Read the responses of one subject to one story: (n_scans, n_voxels) float32; empty voxels are NaN."""
        self._check_n_voxels(subject, self._file(subject, run))
        return super().recording(subject, run)

    def inventory(self, subject: str) -> dict[str, tuple[int, float | None, float]]:
        """Read headers only: story → (scans, TR in seconds, seconds from the first stored scan to the sound)."""
        for file in self.files(subject).values():
            self._check_n_voxels(subject, file)
        return super().inventory(subject)

    def repeats(self, subject: str, columns: Sequence[int] | None = None) -> np.ndarray:
        """Read all repeats of the test story, for noise ceilings.

        Parameters
        ----------
        columns : voxel numbers; those of ``voxels`` when None, or all

        Returns
        -------
        (n_repeats, n_scans, n_targets) float32, as stored; ten repeats for UTS01 to UTS03, five for the others

        Raises
        ------
        RecordingError : the file is absent or damaged, has no repeats, or lacks a voxel
        """
        path = self._response_path(subject, self.test_story)
        chosen = self._voxels_of(subject) if columns is None else np.asarray(columns, dtype=np.intp)
        scans = count_scans(path)[0]
        with open_hdf5(path, "individual_repeats") as data:
            if data.ndim != 3 or data.shape[1] != scans:
                raise RecordingError(
                    f"{path}: 'individual_repeats' has shape {data.shape}; repeats × {scans} scans × voxels are needed. Fetch it again."
                )
            n_repeats, _, n_voxels = data.shape
            voxels = np.arange(n_voxels) if chosen is None else _check_voxels(chosen, n_voxels, path)
            repeats = np.empty((n_repeats, scans, len(voxels)), dtype=np.float32)
            step = max(1, HDF5_BYTES // (8 * max(1, n_voxels)))
            for repeat in range(n_repeats):
                for first in range(0, scans, step):
                    rows = data[repeat, first : first + step]
                    repeats[repeat, first : first + step] = rows if chosen is None else rows[:, voxels]
        return repeats

    @cached_property
    def _responses(self) -> dict[str, dict[str, Path]]:
        """All response files: subject → story → path."""
        responses = {}
        root = self.folder / "preprocessed_data"
        for subject in sorted((e.name for e in os.scandir(root) if e.is_dir()), key=natural_key):
            names = sorted(e.name for e in os.scandir(root / subject) if re.fullmatch(r"[^.].*\.hf5", e.name))
            if names:
                responses[subject] = {name.removesuffix(".hf5"): root / subject / name for name in names}
        return responses

    @cached_property
    def _textgrids(self) -> dict[str, Path]:
        """All TextGrids: story → path."""
        root = self.folder / "TextGrids"
        names = sorted(e.name for e in os.scandir(root)) if root.is_dir() else []
        grids = [name for name in names if re.fullmatch(r"[^.].*\.TextGrid", name)]
        if not grids:
            raise StoryError(f"{root} has no TextGrid. Fetch the folder: datalad get {root}")
        return {name.removesuffix(".TextGrid"): root / name for name in grids}

    @cached_property
    def _published_scans(self) -> dict[str, int]:
        """The number of scans of each story before trimming; empty where respdict.json is absent."""
        path = self.folder / "respdict.json"
        if not os.path.lexists(path):
            return {}
        require_file(path, RecordingError, "table of scans")
        try:
            return {str(k): int(v) for k, v in json.loads(path.read_text(encoding="utf-8")).items()}
        except (ValueError, TypeError, AttributeError) as error:
            raise RecordingError(
                f"{path} cannot be read as story → number of scans ({error}). Fetch it again."
            ) from error

    def _stories_of(self, subject: str) -> list[str]:
        if subject not in self._responses:
            raise RecordingError(
                f"Subject '{subject}' was not found in {self.folder / 'preprocessed_data'}. Found: {', '.join(self._responses) or 'none'}."
            )
        if self.stories is None:
            responses = self._responses[subject]
            return [story for story in responses if story in self._textgrids and self._is_readable(story)]
        for story in self.stories:
            if story not in self._textgrids:
                raise StoryError(
                    f"Story '{story}' has no TextGrid in {self.folder / 'TextGrids'}. Check data.options.stories."
                )
            self._response_path(subject, story)
        return [story for story in dict.fromkeys(self.stories) if self._is_readable(story)]

    def _is_readable(self, story: str) -> bool:
        """Whether the words of a story can be read, once for all; if not, the reason is kept."""
        if story not in self._tiers and story not in self._unreadable:
            try:
                self._tiers[story] = read_word_tier(self._textgrids[story])
            except StoryError as error:
                self._unreadable[story] = str(error)
        return story in self._tiers

    @cached_property
    def _tiers(self) -> dict[str, Tier]:
        return {}

    @cached_property
    def _unreadable(self) -> dict[str, str]:
        return {}

    def _response_path(self, subject: str, story: str) -> Path:
        path = self._responses.get(subject, {}).get(story)
        if path is None:
            raise RecordingError(
                f"Subject '{subject}' has no response to '{story}' in {self.folder / 'preprocessed_data' / subject}. "
                "Leave out the story (data.options.stories) or the subject."
            )
        return path

    @cached_property
    def _story(self) -> Story:
        stories = dict.fromkeys(story for subject in self.subjects() for story in self._stories_of(subject))
        if not stories:
            if self._unreadable:
                raise StoryError(next(iter(self._unreadable.values())))
            raise StoryError(
                f"No story has both responses and a TextGrid in {self.folder}. Fetch the folder TextGrids."
            )
        tables = {story: self._tiers[story].intervals for story in sorted(stories)}
        sentences = self.reading.sentences
        rule = "pauses" if sentences == "auto" else sentences
        return assemble_story(tables, "ds003020", rule, self.reading.pauses, self.reading.language or "en")

    def _column_space(self, file: RunFile) -> Space | None:
        assert isinstance(file.path, Path)
        voxels = self._voxels_of(file.path.parent.name)
        if voxels is None:
            return None
        with open_hdf5(file.path, file.key) as data:
            _check_voxels(voxels, data.shape[-1], file.path)
        return Space("columns", np.array([str(i) for i in voxels]))

    def _voxels_of(self, subject: str) -> np.ndarray | None:
        if self.voxels is None:
            return None
        if "{subject}" not in str(self.voxels) and len(self.subjects()) > 1:
            raise SettingsError(
                f"data.options.voxels names one file ({self.voxels}) for {len(self.subjects())} subjects, but voxel numbers differ "
                "between subjects. Write {subject} in its name."
            )
        path = require_file(
            Path(str(self.voxels).replace("{subject}", subject)), SettingsError, "list of voxels"
        )
        try:
            voxels = np.load(path, allow_pickle=False)
        except (ValueError, OSError, EOFError) as error:
            raise SettingsError(f"{path} cannot be read as a .npy of voxels ({error}).") from error
        if voxels.ndim != 1 or voxels.dtype.kind not in "bui" or len(voxels) == 0:
            raise SettingsError(
                f"{path} has shape {voxels.shape} and type {voxels.dtype}; a list of voxel numbers or of booleans is needed."
            )
        if voxels.dtype != bool:
            numbers: np.ndarray = voxels.astype(np.intp)
            return numbers
        n_voxels = self._n_voxels(subject)[1]
        if len(voxels) != n_voxels:
            raise SettingsError(
                f"{path} has {len(voxels)} booleans, but subject '{subject}' {n_voxels} voxels."
            )
        return np.flatnonzero(voxels)

    def _n_voxels(self, subject: str) -> tuple[Path, int]:
        """Return the first response file of a subject on this disk, and its number of voxels."""
        if subject not in self._cached_n_voxels:
            paths = [f.path for f in self.files(subject).values() if isinstance(f.path, Path)]
            path = next((p for p in paths if p.exists()), paths[0] if paths else None)
            if path is None:
                raise RecordingError(f"Subject '{subject}' has no story with a TextGrid.")
            self._cached_n_voxels[subject] = path, _read_n_voxels(path)
        return self._cached_n_voxels[subject]

    @cached_property
    def _cached_n_voxels(self) -> dict[str, tuple[Path, int]]:
        return {}

    def _check_n_voxels(self, subject: str, file: RunFile) -> None:
        assert isinstance(file.path, Path)
        n_here = _read_n_voxels(file.path)
        first, n_voxels = self._n_voxels(subject)
        if n_here != n_voxels:
            raise RecordingError(
                f"{file.path} has {n_here} voxels, but {first.name} of the same subject {n_voxels}: one of them belongs to another "
                "subject or version. Fetch both again."
            )


def _read_n_voxels(path: Path) -> int:
    with open_hdf5(path, "data") as data:
        if data.ndim != 2:
            raise RecordingError(f"{path} has shape {data.shape} under 'data'; scans × voxels are needed.")
        return int(data.shape[1])


def _check_voxels(voxels: np.ndarray, n_voxels: int, path: Path) -> np.ndarray:
    """Check that a file has the voxels with these numbers."""
    if len(np.unique(voxels)) != len(voxels):
        raise RecordingError("A voxel number is listed twice. List each voxel once.")
    if len(voxels) and (voxels.max() >= n_voxels or voxels.min() < 0):
        absent = voxels.max() if voxels.max() >= n_voxels else voxels.min()
        raise RecordingError(f"{path} has {n_voxels} voxels, numbered from 0; there is no voxel {absent}.")
    return voxels
