"""A corpus of your own: one subject, 23 stories, in one .npz file.

A study file names this module as ``corpus = "uts02:corpus"``. The file holds two arrays a story:
``…/STORY/text``, the words heard in each scan, and ``…/STORY/pcs``, (n_scans, 50) principal components of the
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
N_FIRST = 10  # the components that the region "first10" holds


def corpus(path: Path, file: str = FILE, stories: Sequence[str] | None = None) -> Stories:
    """Make the corpus; langcortex calls this with ``data.path`` and whatever stands in ``[data.options]``.

    Parameters
    ----------
    path : the folder that holds the file
    file : its name
    stories : read only these; all when None
    """
    return Stories(Path(path) / file, None if stories is None else tuple(stories))


@dataclass(frozen=True, eq=False)
class Stories:
    """What langcortex asks of a corpus: ``subjects()``, ``story()``, ``runs(subject)`` and ``recording(subject, run)``."""

    file: Path
    wanted: tuple[str, ...] | None = None

    def subjects(self) -> list[str]:
        """List the one subject."""
        return ["UTS02"]

    def story(self) -> Story:
        """Read the words. The file says in which scan a word was heard, so the words of a scan share its 2 s evenly.

        Nothing in the file says where sentences end: the words of one scan are called a sentence here. The study
        reads a running context, which does not ask for sentences.
        """
        words, onsets, durations, scans = {}, {}, {}, {}
        for run, (text, _) in self._arrays.items():
            heard = [str(line).split() for line in text]
            count = np.array([len(line) for line in heard])
            scan = np.repeat(np.arange(len(heard)), count)
            length = TR / count[scan]
            place = np.arange(len(scan)) - np.repeat(np.cumsum(count) - count, count)
            words[run] = [word for line in heard for word in line]
            onsets[run] = scan * TR + place * length
            durations[run] = length
            scans[run] = scan.tolist()
        return make_story(words, onsets, durations, name="stories", sentence=scans)

    def runs(self, subject: str) -> list[str]:
        """List the stories."""
        return list(self._arrays)

    def recording(self, subject: str, run: str) -> Recording:
        """Read the components, scan by scan. They are z-scored in each story already, so nothing is cleaned here."""
        _, values = self._arrays[run]
        names = np.array([f"pc-{i:02d}" for i in range(values.shape[1])])
        regions = {"first10": np.arange(len(names)) < N_FIRST, "all50": np.ones(len(names), dtype=bool)}
        space = Space("columns", names, regions=regions)
        return Recording(values.astype(np.float32), np.arange(len(values)) * TR, TR, run, subject, space)

    @cached_property
    def _arrays(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Read each story's words and components: training stories first, test stories last, as the file has them."""
        if not self.file.is_file():
            raise RecordingError(
                f"There is no {self.file}. Check data.path, or name it in data.options.file."
            )
        found = {}
        with np.load(self.file, allow_pickle=False) as saved:
            keys = {key.split("/")[-2]: key for key in saved if key.endswith("/text")}
            missing = [run for run in self.wanted or () if run not in keys]
            if missing:
                raise RecordingError(
                    f"{self.file.name} has no story '{missing[0]}'. It has: {', '.join(keys)}."
                )
            for run, key in keys.items():
                if self.wanted is not None and run not in self.wanted:
                    continue
                text, values = saved[key], saved[key.removesuffix("text") + "pcs"]
                if len(text) != len(values):
                    raise RecordingError(
                        f"Story '{run}' has words for {len(text)} scans, but {len(values)} scans of responses."
                    )
                found[run] = text, values
        return found
