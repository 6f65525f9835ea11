"""A study's corpus with recordings that carry no story: the same words, clock and space, other responses."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from langcortex.audit.null_recordings import SURROGATES, RestScans, read_rest, rest_recording
from langcortex.audit.rows import describe_cleaning
from langcortex.brain.recording import Cleaning, Recording
from langcortex.cache import digest
from langcortex.datasets import Corpus
from langcortex.errors import SettingsError
from langcortex.progress import Progress, silent
from langcortex.study.controls import check_names
from langcortex.study.corpus import make_protocol, read_words
from langcortex.study.feature_spaces import Spaces, make_spaces
from langcortex.study.settings import Study

IN_MEMORY = 1e9  # bytes of recordings in memory between draws, so that small studies read them once


def separate_output(study: Study, folder: str) -> Study:
    """Return the same study for null recordings: it writes into another folder and does not check the clock."""
    recording = study.recording.model_copy(update={"clock": "trust"})
    return study.model_copy(update={"recording": recording, "output": folder})


def read_spaces(study: Study, corpus: Corpus, progress: Progress | None) -> Spaces:
    """Extract the feature spaces once for all draws; nothing is written to the study's output folder."""
    check_names(study, corpus)
    story, _ = read_words(study, corpus)
    with tempfile.TemporaryDirectory(prefix="langcortex-null-") as folder:
        protocol = make_protocol(study, corpus)
        return make_spaces(separate_output(study, folder), corpus, story, protocol, progress or silent)


def rest_cleaning(corpus: Corpus) -> Cleaning:
    """Return the cleaning of rest: that of the study's runs, without their tables of nuisance signals."""
    return replace(describe_cleaning(corpus), confounds=())


class NullCorpus:
    """A corpus like another, but with recordings that carry no story.

    Parameters
    ----------
    corpus : the other corpus
    kind, seed : of the null recordings
    rest_path : a recording of rest, or a folder of them, for the kind "rest"
    memory, rests : recordings that were read already, shared by all draws
    """

    def __init__(
        self,
        corpus: Corpus,
        kind: str,
        seed: tuple[int, int],
        rest_path: Path | None,
        memory: dict[tuple[str, str], Recording],
        rests: list[tuple[RestScans, ...]],
    ) -> None:
        self._corpus, self._kind, self._seed, self._rest_path = corpus, kind, seed, rest_path
        self._memory, self._rests = memory, rests

    def __getattr__(self, name: str) -> Any:
        return getattr(self._corpus, name)

    def subjects(self) -> Sequence[str]:
        """Return the names of the subjects."""
        return self._corpus.subjects()

    def story(self) -> Any:
        """Return the words, as they are."""
        return self._corpus.story()

    def runs(self, subject: str) -> Sequence[str]:
        """Return the names of a subject's runs."""
        return self._corpus.runs(subject)

    def recording(self, subject: str, run: str) -> Recording:
        """Return a null recording, which depends on seed, draw, subject and run alone."""
        recording = self._read(subject, run)
        rng = np.random.default_rng([*self._seed, int(digest([subject, run])[:8], 16)])
        if self._rest_path is None:
            return SURROGATES[self._kind](recording, rng)
        if not self._rests or self._rests[0][0].values.shape[1] != recording.space.n_targets:
            self._rests[:] = [read_rest(self._rest_path, recording.space)]
        return rest_recording(recording, self._rests[0], rng, rest_cleaning(self._corpus))

    def check(self) -> None:
        """Make one null recording, so that errors come before a model reads the story for hours."""
        for subject in list(self.subjects())[:1]:
            for run in list(self.runs(subject))[:1]:
                self.recording(subject, run)

    def _read(self, subject: str, run: str) -> Recording:
        if (subject, run) in self._memory:
            return self._memory[subject, run]
        recording = self._corpus.recording(subject, run)
        if not isinstance(recording, Recording):
            raise SettingsError(
                "Recordings without a story are made of scans, and this corpus has one response per sentence. Use a corpus with scans."
            )
        if sum(r.values.nbytes for r in self._memory.values()) + recording.values.nbytes <= IN_MEMORY:
            self._memory[subject, run] = recording
        return recording
