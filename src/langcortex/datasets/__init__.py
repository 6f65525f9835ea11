"""Corpora: each knows its subjects, its story and its recordings, exactly as they lie on disk.

A corpus is any object with the methods of `Corpus`. A study file names one that langcortex knows
(``corpus = "lpp"``; docs/corpora.md lists them), or one of its own as ``corpus = "my_module:corpus"``:
``corpus(path, **options)`` in ``my_module.py`` beside the study file (or in an installed package) must return
such an object.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from langcortex.datasets.corpus import Corpus, CorpusOnDisk, Reading, RunFile, check_options
from langcortex.datasets.files import FilesCorpus

__all__ = ["CORPORA", "Corpus", "CorpusOnDisk", "FilesCorpus", "Reading", "RunFile", "open_named"]

CORPORA: tuple[str, ...] = (
    "lpp",
    "lebel",
    "narratives",
    "reading_brain",
    "alice",
    "fmriprep",
    "pereira",
    "tuckute",
    "brainscore",
)
"""The corpora that langcortex knows: each is a module of this package with ``corpus(path, reading, **options)``."""


def open_named(name: str, path: Path, reading: Reading, options: Mapping[str, Any]) -> Corpus:
    """Open a corpus that langcortex knows.

    Parameters
    ----------
    name : one of `CORPORA`
    path : the folder it was downloaded to
    reading : what the study asks of recordings
    options : the corpus's own, such as ``language`` (``[data.options]``)
    """
    make = importlib.import_module(f"langcortex.datasets.{name}").corpus
    check_options(name, make, options)
    made: Corpus = make(path, reading, **options)
    return made
