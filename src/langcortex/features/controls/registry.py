"""Controls: what could be said about a story without any language model, made by name."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import UnionType
from typing import Any

import numpy as np

from langcortex.errors import SettingsError
from langcortex.features.controls.corpus_measures import corpus_measure
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
from langcortex.features.pieces import sentence_pieces, word_pieces
from langcortex.features.table import Features
from langcortex.stimulus.story import Story


def word_count(story: Story) -> Features:
    """Count words: 1 a word, summed into sentences; over scans, impulses at word onsets (the word rate)."""
    return word_pieces("word_count", story, np.ones(len(story)), "sum")


def duration(story: Story) -> Features:
    """How long each sentence lasts, in seconds."""
    return sentence_pieces("duration", story, story.sentences.duration)


def word_rate(story: Story) -> Features:
    """Words a second in each sentence."""
    s = story.sentences
    return sentence_pieces("word_rate", story, s.n_words / np.maximum(s.duration, 1e-3))


def letters(story: Story) -> Features:
    """Count letters, summed into sentences."""
    return word_pieces(
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
"""Control → the function that makes it; what it takes after the story are options of the study."""

GIVEN = ("base", "corpus", "tables")  # what the study itself hands to a control that asks for it
PYTHON_ONLY = {"oasm": ("blocks",)}


def control(
    name: str,
    story: Story,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    base: Path = Path(),
    tables: Mapping[str, Features] | None = None,
    corpus: object = None,
) -> Features:
    """Make a control by name.

    Parameters
    ----------
    name : one of `CONTROLS`; or a measure of the corpus's own (see `langcortex.datasets.measures`); or any name whose
        options say which control it is, as in ``glove = {control = "static", file = "glove.txt"}``
    story : its words and pieces
    options : name → the options of that control
    base : the folder that relative paths in options start from
    tables : feature spaces by name, for controls that are made from another
    corpus : for controls that a corpus has more to say about: its measures, its sound files

    Returns
    -------
    Features, called `name`

    Raises
    ------
    SettingsError : there is no such control, or it does not take these options

    >>> list(CONTROLS)[:5]
    ['word_count', 'duration', 'word_rate', 'position', 'letters']
    """
    given = dict((options or {}).get(name, {}))
    which = str(given.pop("control", name))
    offered = _measures(corpus)
    if which in CONTROLS:
        bound = bind_options(name, CONTROLS[which], given, base, tables, corpus)
        made = CONTROLS[which](story, **bound)
    elif which in offered:
        if given:
            raise SettingsError(f"The control '{name}' comes from the corpus and takes no options.")
        made = corpus_measure(corpus.measure(which), story)  # type: ignore[attr-defined]  # it offers measures
    else:
        raise SettingsError(f"No control is called '{which}'. There are: {', '.join([*CONTROLS, *offered])}.")
    return replace(made, name=name)


def check_controls(
    names: Sequence[str], options: Mapping[str, Mapping[str, Any]], corpus: object = None
) -> None:
    """Hold the controls and options of a study against what there is, before anything is made.

    Names with a colon are functions of the user's own, and pass.

    Raises
    ------
    SettingsError : there is no such control, an option is unknown or of the wrong type, or options name a
        control that the study does not use
    """
    stray = next((name for name in options if name not in names), None)
    if stray is not None:
        raise SettingsError(
            f"features.options has '{stray}', but features.controls has not. Its names are: {', '.join(names) or 'none'}."
        )
    for name in names:
        given = dict(options.get(name, {}))
        which = str(given.pop("control", name))
        if which in CONTROLS:
            bind_options(name, CONTROLS[which], given, Path(), None, corpus)
        elif ":" not in which and which not in (offered := _measures(corpus)):
            raise SettingsError(
                f"No control is called '{which}'. There are: {', '.join([*CONTROLS, *offered])}."
            )


def bind_options(
    name: str,
    make: Callable[..., Features],
    given: Mapping[str, Any],
    base: Path = Path(),
    tables: Mapping[str, Features] | None = None,
    corpus: object = None,
) -> dict[str, Any]:
    """Turn options, as a study file gives them, into the arguments of a function ``(story, **options)``.

    Paths are taken from `base`; arguments called base, tables and corpus are handed over and are no options.

    Raises
    ------
    SettingsError : there is no such option, it is of another type, or one that is needed is missing
    """
    hints = typing.get_type_hints(make)
    known = list(inspect.signature(make).parameters.values())[1:]
    takes = {p.name: p for p in known if p.name not in (*GIVEN, *PYTHON_ONLY.get(make.__name__, ()))}
    unknown = next((key for key in given if key not in takes), None)
    if unknown is not None:
        raise SettingsError(
            f"The control '{name}' has no option '{unknown}' (features.options.{name}). It takes: {', '.join(takes) or 'none'}."
        )
    missing = [p.name for p in takes.values() if p.default is p.empty and p.name not in given]
    if missing:
        raise SettingsError(
            f"The control '{name}' needs the option '{missing[0]}': set features.options.{name}.{missing[0]}."
        )
    handed = {"base": base, "tables": tables, "corpus": corpus}
    bound = {p.name: handed[p.name] for p in known if p.name in handed}
    return bound | {key: _typed(name, key, value, hints[key], base) for key, value in given.items()}


def _typed(name: str, key: str, value: Any, hint: Any, base: Path) -> Any:
    """Give an option as the type that its control asks for."""
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
    wanted = " or ".join(words[k] for k in kinds if k in words)
    raise SettingsError(f"features.options.{name}.{key} is {wanted}, not {value!r}.")


def _measures(corpus: object) -> tuple[str, ...]:
    return tuple(corpus.measures()) if hasattr(corpus, "measures") else ()
