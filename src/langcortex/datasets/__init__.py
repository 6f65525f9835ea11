"""Corpora: each knows its subjects, its story and its recordings.

A corpus is any object with the methods of `Corpus`. A study file names one of its own as
``corpus = "my_module:corpus"``: ``corpus(path, **options)`` in ``my_module.py`` beside the study file (or in
an installed package) must return such an object.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from langcortex.datasets.files import FilesCorpus
from langcortex.recording import Recording
from langcortex.story import Story

__all__ = ["Corpus", "FilesCorpus"]


@runtime_checkable
class Corpus(Protocol):
    """What langcortex asks of a corpus."""

    def subjects(self) -> Sequence[str]:
        """List the subjects."""
        ...

    def story(self) -> Story:
        """Read the words that all subjects heard or read."""
        ...

    def recordings(self, subject: str) -> Sequence[Recording]:
        """Read the runs of one subject, named like the story's runs."""
        ...
