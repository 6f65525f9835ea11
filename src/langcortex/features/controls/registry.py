"""Controls: feature spaces that need no language model, by name."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import UnionType
from typing import Any

import numpy as np

from langcortex.errors import SettingsError, StoryError
from langcortex.features.controls.corpus_measures import tabulate_measure
from langcortex.features.controls.frequency import log_frequency
from langcortex.features.controls.oasm import oasm
from langcortex.features.controls.phase_random import random_features
from langcortex.features.controls.position import (
    position,
    position_in_run,
    position_in_sentence,
    position_onehot,
    position_ramps,
    trend,
)
from langcortex.features.controls.sound import sound_power
from langcortex.features.controls.word_vectors import static_vectors
from langcortex.features.pieces import tabulate_sentences, tabulate_words
from langcortex.features.table import Features
from langcortex.paths import as_path
from langcortex.stimulus.story import Story


def word_count(story: Story) -> Features:
    """Number of words: 1 per word, summed into sentences; over scans, impulses at word onsets (the word rate)."""
    return tabulate_words("word_count", story, np.ones(len(story)), "sum")


def duration(story: Story) -> Features:
    """Duration of each sentence, in seconds.

    Raises
    ------
    StoryError : no sentence lasts
    """
    _require_durations("duration", story)
    return tabulate_sentences("duration", story, story.sentences.duration)


def word_rate(story: Story) -> Features:
    """Words per second in each sentence; a sentence of one word that lasts 0 s has the median of the others.

    Raises
    ------
    StoryError : no sentence lasts
    """
    _require_durations("word_rate", story)
    s = story.sentences
    lasts = s.duration > 0
    rate = s.n_words / np.where(lasts, np.maximum(s.duration, 1e-3), 1.0)
    return tabulate_sentences("word_rate", story, np.where(lasts, rate, np.median(rate[lasts])))


def _require_durations(name: str, story: Story) -> None:
    if not (story.sentences.duration > 0).any():
        raise StoryError(
            f"The control '{name}' needs durations, but every row of story '{story.name}' lasts 0 s (onsets only). Leave it out "
            "of features.controls and protocol.confounds, or give the words durations."
        )


def letters(story: Story) -> Features:
    """Number of letters and digits of each word, summed into sentences."""
    return tabulate_words(
        "letters", story, np.array([sum(c.isalnum() for c in str(w)) for w in story.text]), "sum"
    )


CONTROLS: dict[str, Callable[..., Features]] = {
    "word_count": word_count,
    "duration": duration,
    "word_rate": word_rate,
    "position": position,
    "letters": letters,
    "log_frequency": log_frequency,
    "position_in_sentence": position_in_sentence,
    "position_in_run": position_in_run,
    "position_onehot": position_onehot,
    "position_ramps": position_ramps,
    "trend": trend,
    "oasm": oasm,
    "static": static_vectors,
    "sound_power": sound_power,
    "random": random_features,
}
"""Control → its function; the parameters after the story are options of the study."""

FROM_STUDY = ("base", "corpus", "tables")  # parameters that the study itself fills in
PYTHON_ONLY = {"oasm": ("blocks",)}


def control(
    name: str,
    story: Story,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    base: Path | str = Path(),
    tables: Mapping[str, Features] | None = None,
    corpus: object = None,
) -> Features:
    """Make a control by name.

    Parameters
    ----------
    name : one of `CONTROLS`; or a measure of the corpus (see `langcortex.datasets.measures`); or any name whose
        options name the control, as in ``glove = {control = "static", file = "glove.txt"}``
    story : its words and sentences
    options : name → the options of that control
    base : the folder to which paths in options are relative
    tables : feature spaces by name, for controls that are computed from one
    corpus : for controls that need a corpus: its measures, its sound files

    Returns
    -------
    Features, called `name`

    Raises
    ------
    SettingsError : there is no such control, or it does not take these options

    >>> list(CONTROLS)[:5]
    ['word_count', 'duration', 'word_rate', 'position', 'letters']
    """
    base = as_path(base)
    settings = dict((options or {}).get(name, {}))
    kind = str(settings.pop("control", name))
    measures = _measure_names(corpus)
    if kind in CONTROLS:
        arguments = bind_options(name, CONTROLS[kind], settings, base, tables, corpus)
        table = CONTROLS[kind](story, **arguments)
    elif kind in measures:
        if settings:
            raise SettingsError(f"The control '{name}' comes from the corpus and takes no options.")
        table = tabulate_measure(corpus.measure(kind), story)  # type: ignore[attr-defined]  # it has measures
    else:
        raise SettingsError(f"No control is called '{kind}'. There are: {', '.join([*CONTROLS, *measures])}.")
    return replace(table, name=name)


def check_controls(
    names: Sequence[str], options: Mapping[str, Mapping[str, Any]], corpus: object = None
) -> None:
    """Check the names and options of a study's controls before any of them is computed.

    Names with a colon are functions of the user and are not checked.

    Raises
    ------
    SettingsError : there is no such control, an option is unknown or of the wrong type, or there are
        options for a control that the study does not use
    """
    stray = next((name for name in options if name not in names), None)
    if stray is not None:
        raise SettingsError(
            f"features.options has '{stray}', but features.controls has not. Its names are: {', '.join(names) or 'none'}."
        )
    for name in names:
        settings = dict(options.get(name, {}))
        kind = str(settings.pop("control", name))
        if kind in CONTROLS:
            bind_options(name, CONTROLS[kind], settings, Path(), None, corpus)
        elif ":" not in kind and kind not in (measures := _measure_names(corpus)):
            raise SettingsError(
                f"No control is called '{kind}'. There are: {', '.join([*CONTROLS, *measures])}."
            )


def bind_options(
    name: str,
    function: Callable[..., Features],
    options: Mapping[str, Any],
    base: Path = Path(),
    tables: Mapping[str, Features] | None = None,
    corpus: object = None,
) -> dict[str, Any]:
    """Turn options of a study file into the arguments of a function ``(story, **options)``.

    Paths are relative to `base`; parameters called base, tables and corpus get these values and are no options.

    Raises
    ------
    SettingsError : an option is unknown or of the wrong type, or a required one is missing
    """
    hints = typing.get_type_hints(function)
    parameters = list(inspect.signature(function).parameters.values())[1:]
    not_options = (*FROM_STUDY, *PYTHON_ONLY.get(function.__name__, ()))
    accepted = {p.name: p for p in parameters if p.name not in not_options}
    unknown = next((key for key in options if key not in accepted), None)
    if unknown is not None:
        raise SettingsError(
            f"The control '{name}' has no option '{unknown}' (features.options.{name}). It takes: {', '.join(accepted) or 'none'}."
        )
    missing = [p.name for p in accepted.values() if p.default is p.empty and p.name not in options]
    if missing:
        raise SettingsError(
            f"The control '{name}' needs the option '{missing[0]}': set features.options.{name}.{missing[0]}."
        )
    from_study = {"base": base, "tables": tables, "corpus": corpus}
    arguments = {p.name: from_study[p.name] for p in parameters if p.name in from_study}
    return arguments | {key: _convert(name, key, value, hints[key], base) for key, value in options.items()}


def _convert(name: str, key: str, value: Any, hint: Any, base: Path) -> Any:
    """Convert an option to the type of its parameter."""
    union = typing.get_origin(hint) in (typing.Union, UnionType)
    kinds = [typing.get_origin(h) or h for h in (typing.get_args(hint) if union else (hint,))]
    if Path in kinds and isinstance(value, str):
        return base / Path(value).expanduser()
    if float in kinds and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if any(type(value) is kind for kind in kinds):
        return value
    words = {
        str: "text",
        Path: "a path",
        int: "a whole number",
        float: "a number",
        bool: "true or false",
        dict: "a table",
    }
    expected = " or ".join(words[k] for k in kinds if k in words)
    raise SettingsError(f"features.options.{name}.{key} is {expected}, not {value!r}.")


def _measure_names(corpus: object) -> tuple[str, ...]:
    return tuple(corpus.measures()) if hasattr(corpus, "measures") else ()
