"""The control features of a study, by name."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping

from langcortex.datasets import Corpus
from langcortex.features import Features, control
from langcortex.features.controls.registry import CONTROLS, bind_options, check_controls
from langcortex.stimulus.story import Story
from langcortex.study.settings import Study
from langcortex.study.user_code import load_object


def check_names(study: Study, corpus: Corpus) -> None:
    """Check the names and options of the study's controls, before anything is computed.

    Raises
    ------
    SettingsError : a control or an option is unknown
    """
    check_controls(_control_names(study), study.features.options, corpus)


def make_controls(
    study: Study, story: Story, corpus: Corpus, tables: Mapping[str, Features] | None = None
) -> dict[str, Features]:
    """Make the controls that a study names, and those that its confounds need.

    Parameters
    ----------
    story : grouped into the study's rows
    corpus : for its measures of words
    tables : the models' layers, for controls that are computed from them
    """
    controls = [make_control(study, story, name, corpus, tables) for name in _control_names(study)]
    return {features.name: features for features in controls}


def make_control(
    study: Study,
    story: Story,
    name: str,
    corpus: Corpus | None = None,
    tables: Mapping[str, Features] | None = None,
) -> Features:
    """Make one control by its name, which may be that of a user's function."""
    options, base = study.features.options, study.base
    if ":" not in name:
        return control(name, story, options, base, tables, corpus)
    short = name.rsplit(":", 1)[-1]
    function = load_object(name, study)
    arguments = bind_options(short, function, options.get(name, {}), base, tables, corpus)
    features: Features = function(story, **arguments)
    return dataclasses.replace(features, name=short)  # whatever the function calls it


def needs_tables(study: Study, name: str) -> bool:
    """Return whether a control is computed from a model's features, so that it cannot be made before they are."""
    kind = str(study.features.options.get(name, {}).get("control", name))
    function = load_object(name, study) if ":" in name else CONTROLS.get(kind)
    return function is not None and "tables" in inspect.signature(function).parameters


def _control_names(study: Study) -> list[str]:
    """List the controls that a study fits, regresses out, or puts into bands."""
    chosen = study.protocol.confounds
    confounds = study.to_protocol().confounds if chosen is None else chosen
    return list(dict.fromkeys((*study.features.controls, *confounds, *band_controls(study))))


def band_controls(study: Study) -> list[str]:
    """List the controls in the bands of a partition; surprisal and entropy come with the model."""
    bands = study.partition.bands.values()
    return [name for names in bands for name in names if name not in ("surprisal", "entropy")]
