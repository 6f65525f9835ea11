"""A corpus of your own: one subject, 23 stories, in one .npz file.

A study file names this module as ``corpus = "uts02:corpus"``. The file has two arrays per story:
``…/STORY/text``, the words played during each scan, and ``…/STORY/pcs``, (n_scans, 50) principal components of the
whole-brain response. The scans of both are the same scans.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from langcortex.brain.recording import Recording
from langcortex.brain.space import Space
from langcortex.errors import RecordingError
from langcortex.stimulus.story import Story, make_story

FILE = "huth_uts02_small.npz"
TR = 2.0  # seconds from scan to scan
N_FIRST = 10  # components in the region "first10"


def corpus(path: Path, file: str = FILE, stories: Sequence[str] | None = None) -> Stories:
    """Open the corpus; langcortex calls this with ``data.path`` and the options in ``[data.options]``.

    Parameters
    ----------
    path : the folder with the file
    file : its name
    stories : read only these; all when None
    """
    return Stories(Path(path) / file, None if stories is None else tuple(stories))


@dataclass(frozen=True, eq=False)
class Stories:
    """A corpus has ``subjects()``, ``story()``, ``runs(subject)`` and ``recording(subject, run)``."""

    file: Path
    stories: tuple[str, ...] | None = None

    def subjects(self) -> list[str]:
        """List the one subject."""
        return ["UTS02"]

    def story(self) -> Story:
        """Read the words. The file tells in which scan a word was played: the words of a scan share its 2 s evenly.

        The file does not tell where sentences end: the words of a scan are taken as a sentence. The study
        uses a running context, which does not depend on sentences.
        """
        words, onsets, durations, scans = {}, {}, {}, {}
        for run, (text, _) in self._arrays.items():
            lines = [str(line).split() for line in text]
            count = np.array([len(line) for line in lines])
            scan = np.repeat(np.arange(len(lines)), count)
            length = TR / count[scan]
            place = np.arange(len(scan)) - np.repeat(np.cumsum(count) - count, count)
            words[run] = [word for line in lines for word in line]
            onsets[run] = scan * TR + place * length
            durations[run] = length
            scans[run] = scan.tolist()
        return make_story(words, onsets, durations, name="stories", sentence=scans)

    def runs(self, subject: str) -> list[str]:
        """List the stories."""
        return list(self._arrays)

    def recording(self, subject: str, run: str) -> Recording:
        """Read the components of every scan. They are z-scored within each story already and need no cleaning."""
        _, values = self._arrays[run]
        names = np.array([f"pc-{i:02d}" for i in range(values.shape[1])])
        regions = {"first10": np.arange(len(names)) < N_FIRST, "all50": np.ones(len(names), dtype=bool)}
        space = Space("columns", names, regions=regions)
        return Recording(values.astype(np.float32), np.arange(len(values)) * TR, TR, run, subject, space)

    @cached_property
    def _arrays(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Read the words and components of each story in the order of the file: training stories first, test stories last."""
        if not self.file.is_file():
            raise RecordingError(
                f"There is no {self.file}. Check data.path, or name it in data.options.file."
            )
        arrays = {}
        with np.load(self.file, allow_pickle=False) as file:
            keys = {key.split("/")[-2]: key for key in file if key.endswith("/text")}
            missing = [run for run in self.stories or () if run not in keys]
            if missing:
                raise RecordingError(
                    f"{self.file.name} has no story '{missing[0]}'. It has: {', '.join(keys)}."
                )
            for run, key in keys.items():
                if self.stories is not None and run not in self.stories:
                    continue
                text, values = file[key], file[key.removesuffix("text") + "pcs"]
                if len(text) != len(values):
                    raise RecordingError(
                        f"Story '{run}' has words for {len(text)} scans, but {len(values)} scans of responses."
                    )
                arrays[run] = text, values
        return arrays
