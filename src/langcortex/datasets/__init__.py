"""Published corpora as they are on disk: their subjects, story, recordings and licence, and how to download them.

A corpus is any object with the methods of `Corpus`. A study file names one of `CORPORA` (``corpus = "lpp"``;
docs/corpora.md describes them), or one of your own as ``corpus = "my_module:corpus"``: ``corpus(path, **options)``
in ``my_module.py`` beside the study file must return such an object.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from langcortex.datasets.corpus import Corpus, CorpusOnDisk, Reading, RunFile, check_options
from langcortex.datasets.files import FilesCorpus
from langcortex.errors import RecordingError
from langcortex.paths import as_path

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
"""The corpora of langcortex: each is a module of this package with ``corpus(path, reading, **options)``."""


def open_named(name: str, path: Path | str, reading: Reading, options: Mapping[str, Any]) -> Corpus:
    """Open one of the corpora of langcortex.

    Parameters
    ----------
    name : one of `CORPORA`
    path : the folder that it was downloaded to
    reading : how the study reads recordings
    options : options of the corpus, such as ``language`` (``[data.options]``)
    """
    path = as_path(path)
    make = importlib.import_module(f"langcortex.datasets.{name}").corpus
    check_options(name, make, options)
    if not path.exists():
        parent = next((p for p in path.absolute().parents if p.exists()), path)
        raise RecordingError(f"The folder {path} does not exist (only {parent} does). Check data.path.")
    corpus: Corpus = make(path, reading, **options)
    return corpus
