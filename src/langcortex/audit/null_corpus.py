"""A study's corpus with its story taken away: same words, clock and space, other responses."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from langcortex.audit.null_recordings import SURROGATES, Rest, read_rest, rest_recording
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

REMEMBERED = 1e9  # bytes of recordings kept between draws, so that small studies read them once


def separate_output(study: Study, folder: str) -> Study:
    """Give the same study for noise: it writes into another folder, and noise comes at no time."""
    trusting = study.recording.model_copy(update={"clock": "trust"})
    return study.model_copy(update={"recording": trusting, "output": folder})


def read_spaces(study: Study, corpus: Corpus, progress: Progress | None) -> Spaces:
    """Let every model read the story once, for all draws; nothing is written to the study's output folder."""
    check_names(study, corpus)
    story, _ = read_words(study, corpus)
    with tempfile.TemporaryDirectory(prefix="langcortex-null-") as folder:
        quiet = progress or silent
        return make_spaces(separate_output(study, folder), corpus, story, make_protocol(study, corpus), quiet)


def cleaning_of_rest(corpus: Corpus) -> Cleaning:
    """Clean rest as the study's runs are; tables of nuisance signals belong to those runs, not to it."""
    return replace(describe_cleaning(corpus), confounds=())


class NullCorpus:
    """A corpus like another, whose recordings carry no story."""

    def __init__(
        self,
        corpus: Corpus,
        kind: str,
        seed: tuple[int, int],
        rest: Path | None,
        memory: dict[tuple[str, str], Recording],
        rests: list[tuple[Rest, ...]],
    ) -> None:
        self._corpus, self._kind, self._seed, self._rest = corpus, kind, seed, rest
        self._memory, self._rests = memory, rests

    def __getattr__(self, name: str) -> Any:
        return getattr(self._corpus, name)

    def subjects(self) -> Sequence[str]:
        """Name everyone who was recorded."""
        return self._corpus.subjects()

    def story(self) -> Any:
        """Give the words, as they are."""
        return self._corpus.story()

    def runs(self, subject: str) -> Sequence[str]:
        """Name the runs of a subject."""
        return self._corpus.runs(subject)

    def recording(self, subject: str, run: str) -> Recording:
        """Give a recording that depends on seed, draw, subject and run, whatever else is read."""
        true = self._read(subject, run)
        rng = np.random.default_rng([*self._seed, int(digest([subject, run])[:8], 16)])
        if self._rest is None:
            return SURROGATES[self._kind](true, rng)
        if not self._rests or self._rests[0][0].values.shape[1] != true.space.n_targets:
            self._rests[:] = [read_rest(self._rest, true.space)]
        return rest_recording(true, self._rests[0], rng, cleaning_of_rest(self._corpus))

    def try_one(self) -> None:
        """Make one recording, so that what cannot be made is said before a model reads for hours."""
        for subject in list(self.subjects())[:1]:
            for run in list(self.runs(subject))[:1]:
                self.recording(subject, run)

    def _read(self, subject: str, run: str) -> Recording:
        if (subject, run) in self._memory:
            return self._memory[subject, run]
        true = self._corpus.recording(subject, run)
        if not isinstance(true, Recording):
            raise SettingsError(
                "Recordings without a story are made of scans, and this corpus has a response a sentence. Its own p-values stand alone."
            )
        if sum(r.values.nbytes for r in self._memory.values()) + true.values.nbytes <= REMEMBERED:
            self._memory[subject, run] = true
        return true
