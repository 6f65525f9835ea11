"""LeBel et al. 2023 (OpenNeuro ds003020): nine people, up to 84 spoken stories each, responses by voxel.

The layout is that of ds003020 v3.1.0. Responses are published preprocessed, one HDF5 file a story
(``derivative/preprocessed_data/UTS01/adollshouse.hf5``), and the words are timed in TextGrids
(``derivative/TextGrids/adollshouse.TextGrid``). Times and marks are as in the authors' own loader,
https://github.com/HuthLab/deep-fMRI-dataset. Every voxel number is the subject's own: 81,126 voxels of UTS01 to
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

from langcortex.brain.formats import HDF5_BYTES, n_scans, open_hdf5
from langcortex.brain.recording import Cleaning, Recording
from langcortex.brain.space import Space
from langcortex.datasets.corpus import CorpusOnDisk, Reading, RunFile, select_names
from langcortex.datasets.lebel.words import read_words
from langcortex.errors import RecordingError, SettingsError, StoryError
from langcortex.paths import natural_key, require_file
from langcortex.stimulus.story import Story, assemble_story

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
    path : the data set's folder, or its folder ``derivative``
    reading : what a study asks of recordings
    stories : names, e.g. ``["adollshouse", "buck"]``; all that a subject heard and that have a TextGrid when None
    voxels : a .npy of the voxels to take, as numbers or as one boolean a voxel, with ``{subject}`` in its name
        where there are several subjects; relative to `path`; all voxels when empty
    test_story : the story that was heard five or ten times and is kept for testing

    Raises
    ------
    RecordingError : the folder is another
    SettingsError : an option is of the wrong kind
    """
    if isinstance(stories, str) or not isinstance(voxels, str):
        raise SettingsError(
            'data.options.stories is a list of story names, and data.options.voxels the path of a .npy ("masks/{subject}.npy").'
        )
    folder = path / "derivative" if (path / "derivative").is_dir() else path
    if not (folder / "preprocessed_data").is_dir():
        raise RecordingError(
            f"{path} holds no folder derivative/preprocessed_data (derivative without s). Set data.path to the folder of ds003020."
        )
    named = None if stories is None else tuple(map(str, stories))
    return LeBel(folder, reading, named, path / Path(voxels).expanduser() if voxels else None, test_story)


@dataclass(frozen=True, eq=False)
class LeBel(CorpusOnDisk):
    """The corpus; a run is a story.

    Row i of a response file stands for 2 i + 11 s after the sound began: the files leave out the ten scans
    before and the first five after it began, and the last five, and are not to be trimmed again. Slow drifts
    were removed before publication, so that the usual cleaning only scales every story to unit variance: the test
    story is a mean over repeats and varies less than a story heard once.

    Attributes
    ----------
    folder : the folder ``derivative``
    reading : what a study asks of recordings
    stories : the stories to read, or all
    voxels : a .npy of the voxels to take, perhaps with ``{subject}`` in its name, or all
    test_story : the story to test on
    """

    usual: ClassVar[Cleaning] = Cleaning(detrend=False, high_pass=None, standardise=True)

    folder: Path
    reading: Reading
    stories: tuple[str, ...] | None = None
    voxels: Path | None = None
    test_story: str = TEST_STORY

    @staticmethod
    def citation() -> str:
        """Say what to cite."""
        return (
            "LeBel, A., Wagner, L., Jain, S., et al. (2023). A natural language fMRI dataset for voxelwise encoding "
            "models. Scientific Data, 10, 555. https://doi.org/10.1038/s41597-023-02437-z "
            "(data: https://doi.org/10.18112/openneuro.ds003020.v3.1.0)"
        )

    @staticmethod
    def licence() -> str:
        """Say under which terms the data are published."""
        return "CC0, as dataset_description.json of ds003020 v3.1.0 says."

    @property
    def test_runs(self) -> tuple[str, ...]:
        """The runs to test on and never to learn from: the one repeated story."""
        heard = {story for subject in self.subjects() for story in self._stories_of(subject)}
        return (self.test_story,) if self.test_story in heard else ()

    def subjects(self) -> list[str]:
        """List the subjects, UTS01 to UTS09 as far as they are there."""
        return select_names(self.reading.subjects, list(self._tree), self.folder / "preprocessed_data")

    def files(self, subject: str) -> dict[str, RunFile]:
        """Find the stories of one subject: story → its file."""
        return {
            story: RunFile(
                self._tree[subject][story],
                stimulus_onset=-FIRST_SCAN,
                tr=TR,
                reference=0.5,
                scans=self._published[story] - TRIMMED if story in self._published else None,
            )
            for story in self._stories_of(subject)
        }

    def story(self) -> Story:
        """Read the words of every story that a subject of the study heard.

        The TextGrids have no punctuation: sentences go from pause to pause (``sp``), unless
        ``reading.sentences`` says otherwise. Times are seconds since the sound began.
        """
        return self._story

    def recording(self, subject: str, run: str) -> Recording:
        """Read one story's responses of one subject: (n_scans, n_voxels) float32; empty voxels stay NaN."""
        self._hold_width(subject, self._file(subject, run))
        return super().recording(subject, run)

    def inventory(self, subject: str) -> dict[str, tuple[int, float | None, float]]:
        """Read headers only: story → (scans, TR in seconds, when the sound began after the first stored scan)."""
        for file in self.files(subject).values():
            self._hold_width(subject, file)
        return super().inventory(subject)

    def repeats(self, subject: str, columns: Sequence[int] | None = None) -> np.ndarray:
        """Read every repeat of the test story, for noise ceilings.

        Parameters
        ----------
        columns : voxel numbers; those of ``voxels`` when None, or all

        Returns
        -------
        (n_repeats, n_scans, n_targets) float32, as stored; ten repeats of UTS01 to UTS03, five of the others

        Raises
        ------
        RecordingError : the file is absent or not whole, has no repeats, or no such voxel
        """
        path = self._response(subject, self.test_story)
        wanted = self._voxels_of(subject) if columns is None else np.asarray(columns, dtype=np.intp)
        scans = n_scans(path)[0]
        with open_hdf5(path, "individual_repeats") as data:
            if data.ndim != 3 or data.shape[1] != scans:
                raise RecordingError(
                    f"{path}: 'individual_repeats' has shape {data.shape}; repeats × {scans} scans × voxels are needed. Fetch it again."
                )
            n_repeats, _, width = data.shape
            take = np.arange(width) if wanted is None else _held(wanted, width, path)
            out = np.empty((n_repeats, scans, len(take)), dtype=np.float32)
            step = max(1, HDF5_BYTES // (8 * max(1, width)))
            for repeat in range(n_repeats):
                for first in range(0, scans, step):
                    rows = data[repeat, first : first + step]
                    out[repeat, first : first + step] = rows if wanted is None else rows[:, take]
        return out

    @cached_property
    def _tree(self) -> dict[str, dict[str, Path]]:
        """Every response file: subject → story → path."""
        found = {}
        root = self.folder / "preprocessed_data"
        for subject in sorted((e.name for e in os.scandir(root) if e.is_dir()), key=natural_key):
            names = sorted(e.name for e in os.scandir(root / subject) if re.fullmatch(r"[^.].*\.hf5", e.name))
            if names:
                found[subject] = {name.removesuffix(".hf5"): root / subject / name for name in names}
        return found

    @cached_property
    def _grids(self) -> dict[str, Path]:
        """Every TextGrid: story → path."""
        root = self.folder / "TextGrids"
        names = sorted(e.name for e in os.scandir(root)) if root.is_dir() else []
        grids = [name for name in names if re.fullmatch(r"[^.].*\.TextGrid", name)]
        if not grids:
            raise StoryError(f"{root} holds no TextGrid. Fetch the folder: datalad get {root}")
        return {name.removesuffix(".TextGrid"): root / name for name in grids}

    @cached_property
    def _published(self) -> dict[str, int]:
        """How many scans each story had before trimming; nothing where respdict.json is absent."""
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
        if subject not in self._tree:
            raise RecordingError(
                f"Subject '{subject}' was not found in {self.folder / 'preprocessed_data'}. Found: {', '.join(self._tree) or 'none'}."
            )
        if self.stories is None:
            return [story for story in self._tree[subject] if story in self._grids]
        for story in self.stories:
            if story not in self._grids:
                raise StoryError(
                    f"Story '{story}' has no TextGrid in {self.folder / 'TextGrids'}. Check data.options.stories."
                )
            self._response(subject, story)
        return list(dict.fromkeys(self.stories))

    def _response(self, subject: str, story: str) -> Path:
        path = self._tree.get(subject, {}).get(story)
        if path is None:
            raise RecordingError(
                f"Subject '{subject}' has no response to '{story}' in {self.folder / 'preprocessed_data' / subject}. "
                "Leave out the story (data.options.stories) or the subject."
            )
        return path

    @cached_property
    def _story(self) -> Story:
        wanted = dict.fromkeys(story for subject in self.subjects() for story in self._stories_of(subject))
        if not wanted:
            raise StoryError(
                f"No story has both responses and a TextGrid in {self.folder}. Fetch the folder TextGrids."
            )
        tables = {story: read_words(self._grids[story]) for story in sorted(wanted)}
        how = self.reading.sentences
        return assemble_story(tables, "ds003020", "pauses" if how == "auto" else how)

    def _columns(self, file: RunFile) -> Space | None:
        assert isinstance(file.path, Path)
        wanted = self._voxels_of(file.path.parent.name)
        if wanted is None:
            return None
        with open_hdf5(file.path, file.key) as data:
            _held(wanted, data.shape[-1], file.path)
        return Space("columns", np.array([str(i) for i in wanted]))

    def _voxels_of(self, subject: str) -> np.ndarray | None:
        if self.voxels is None:
            return None
        if "{subject}" not in str(self.voxels) and len(self.subjects()) > 1:
            raise SettingsError(
                f"data.options.voxels names one file ({self.voxels}) for {len(self.subjects())} subjects, but a voxel number is "
                "another place in each. Write {subject} in its name."
            )
        path = require_file(
            Path(str(self.voxels).replace("{subject}", subject)), SettingsError, "list of voxels"
        )
        try:
            listed = np.load(path, allow_pickle=False)
        except (ValueError, OSError, EOFError) as error:
            raise SettingsError(f"{path} cannot be read as a .npy of voxels ({error}).") from error
        if listed.ndim != 1 or listed.dtype.kind not in "bui" or len(listed) == 0:
            raise SettingsError(
                f"{path} has shape {listed.shape} and type {listed.dtype}; a list of voxel numbers or of booleans is needed."
            )
        if listed.dtype != bool:
            numbers: np.ndarray = listed.astype(np.intp)
            return numbers
        width = self._width(subject)[1]
        if len(listed) != width:
            raise SettingsError(f"{path} has {len(listed)} booleans, but subject '{subject}' {width} voxels.")
        return np.flatnonzero(listed)

    def _width(self, subject: str) -> tuple[Path, int]:
        """How many voxels the subject's first response file on this disk has."""
        if subject not in self._widths:
            paths = [f.path for f in self.files(subject).values() if isinstance(f.path, Path)]
            path = next((p for p in paths if p.exists()), paths[0] if paths else None)
            if path is None:
                raise RecordingError(f"Subject '{subject}' has no story with a TextGrid.")
            self._widths[subject] = path, _width_of(path)
        return self._widths[subject]

    @cached_property
    def _widths(self) -> dict[str, tuple[Path, int]]:
        return {}

    def _hold_width(self, subject: str, file: RunFile) -> None:
        assert isinstance(file.path, Path)
        here = _width_of(file.path)
        first, width = self._width(subject)
        if here != width:
            raise RecordingError(
                f"{file.path} has {here} voxels, but {first.name} of the same subject {width}: one of them is another subject's or "
                "another version's. Fetch both again."
            )


def _width_of(path: Path) -> int:
    with open_hdf5(path, "data") as data:
        if data.ndim != 2:
            raise RecordingError(f"{path} has shape {data.shape} under 'data'; scans × voxels are needed.")
        return int(data.shape[1])


def _held(wanted: np.ndarray, width: int, path: Path) -> np.ndarray:
    """Hold voxel numbers against what a file has."""
    if len(np.unique(wanted)) != len(wanted):
        raise RecordingError("A voxel number is listed twice.")
    if len(wanted) and (wanted.max() >= width or wanted.min() < 0):
        worst = wanted.max() if wanted.max() >= width else wanted.min()
        raise RecordingError(f"{path} has {width} voxels, numbered from 0; there is no voxel {worst}.")
    return wanted
