"""The study file: reading it, overriding settings, its template, and guesses at misspelt settings."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pydantic
from pydantic import BaseModel

from langcortex.errors import SettingsError
from langcortex.study.settings import (
    AtlasSettings,
    CompareSettings,
    Data,
    DesignSettings,
    FeatureSettings,
    InferenceSettings,
    ModelSettings,
    PartitionSettings,
    ProtocolSettings,
    RecordingSettings,
    SettingsTable,
    StorySettings,
    Study,
)

PERMISSIONS = ("folder", "allow_code")  # of a study, set by who reads it and never by its file


def read_study(path: Path | str, overrides: Sequence[str] = (), allow_code: bool = False) -> Study:
    """Read a study file.

    Parameters
    ----------
    path : a TOML file
    overrides : ``"key=value"``, e.g. ``"data.path=/data/lpp"`` or ``"models.0.dtype=bfloat16"``; the value is
        read as TOML where it can be, otherwise as text
    allow_code : let the study run functions of files beside it, and code that comes with models

    Raises
    ------
    SettingsError : one sentence per problem, all at once
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise SettingsError(
            f"The study file {path} does not exist. Write one with: langcortex init {path.name}"
        )
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path.name} is not valid TOML: {error}.") from error
    for override in overrides:
        _override(values, override)
    return make_study(values, path.name, path.resolve().parent, allow_code)


def make_study(
    values: Mapping[str, Any],
    source: str = "study",
    folder: Path | str | None = None,
    allow_code: bool = False,
) -> Study:
    """Make a `Study` of settings.

    Parameters
    ----------
    values : tables and settings, as in a study file
    source : what messages call them
    folder : relative paths start here; the working folder when None
    allow_code : let the study run functions of files in `folder`, and code that comes with models

    Raises
    ------
    SettingsError : one sentence per problem, all at once
    """
    key = next((name for name in PERMISSIONS if name in values), None)
    if key is not None:
        raise SettingsError(
            f"{source}: '{key}' is no setting of a study file. Use --allow-code, or allow_code=True from Python."
            if key == "allow_code"
            else f"{source}: no setting is called '{key}'."
        )
    try:
        study = Study(**{**values, "folder": str(folder or Path.cwd()), "allow_code": allow_code})
    except pydantic.ValidationError as error:
        raise SettingsError("\n".join(_sentences(source, error.errors()))) from error
    if any(m.untrained for m in study.models):
        study = study.model_copy(update={"models": [twin for m in study.models for twin in m.with_twins()]})
    labels = [m.label for m in study.models]
    duplicate = next((name for name in labels if labels.count(name) > 1), None)
    if duplicate:
        raise SettingsError(f"{source}: two models are called '{duplicate}'. Give each a name of its own.")
    shared = next((name for name in labels if name in study.features.controls), None)
    if shared:
        raise SettingsError(
            f"{source}: '{shared}' is the name of a control too. Give the model another name."
        )
    invalid = next((name for name in labels if "/" in name or not name), None)
    if invalid is not None:
        raise SettingsError(
            f"{source}: '{invalid}' cannot name a model; use letters, digits, dots and dashes."
        )
    curves = [name for label in labels for name in study.features.curves(label).values()]
    shared_curve = next((name for name in curves if curves.count(name) > 1), None)
    if shared_curve:
        raise SettingsError(
            f"{source}: two curves are called '{shared_curve}', because of features.take. Give a model another name."
        )
    for name in study.partition.models or ():
        if name not in curves:
            raise SettingsError(
                f"{source}: partition.models names '{name}', but the models are: {', '.join(curves) or 'none'}."
            )
    for a, b in study.compare.pairs or ():
        for name in (a, b):
            if name not in curves:
                raise SettingsError(
                    f"{source}: compare.pairs names '{name}', but the models are: {', '.join(curves) or 'none'}."
                )
    return study


def _override(values: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise SettingsError(f"--set takes key=value, e.g. --set data.path=/data/lpp; not '{override}'.")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    *path, last = key.split(".")
    table: Any = values
    for step in path:
        if isinstance(table, list):
            if not step.isdigit() or int(step) >= len(table):
                raise SettingsError(
                    f"--set {key}: there is no entry {step}; there are {len(table)}, counted from 0."
                )
            table = table[int(step)]
        else:
            table = table.setdefault(step, {})
        if not isinstance(table, dict | list):
            raise SettingsError(f"--set {key}: '{step}' is a value, not a table.")
    if isinstance(table, list):
        raise SettingsError(f"--set {key}: name the entry and the key, e.g. models.0.source.")
    table[last] = value


_KIND = re.compile(
    r"str|int|float|bool|(dict|list|literal)\[.*\]"
)  # pydantic's names of the types of settings


def _sentences(source: str, problems: Sequence[Any]) -> list[str]:
    """Turn pydantic's errors into one sentence per setting; a setting of several types has one error for each type."""
    by_place: dict[tuple[str, ...], list[Any]] = {}
    for problem in problems:
        where = tuple(str(step) for step in problem["loc"] if not _KIND.fullmatch(str(step)))
        by_place.setdefault(where, []).append(problem)
    deepest = [w for w in by_place if not any(o[: len(w)] == w and o != w for o in by_place)]
    return [_sentence(source, where, by_place[where]) for where in deepest]


def _sentence(source: str, where: tuple[str, ...], problems: Sequence[Any]) -> str:
    """Describe in one sentence what is wrong with a setting."""
    leaf, table = where[-1], ".".join(where[:-1])
    place = f"{source}, [{table}]" if table else source
    if problems[0]["type"] == "extra_forbidden":
        guess = _closest(leaf, where[:-1])
        return f"{place}: no setting is called '{leaf}'." + (f" Did you mean '{guess}'?" if guess else "")
    if problems[0]["type"] == "missing":
        return f"{place}: the setting '{leaf}' is missing."
    value = problems[0].get("input")
    got = f", not {value!r}" if isinstance(value, str | int | float | bool) else ""
    expected = " or ".join(dict.fromkeys(map(_expected_type, problems))).replace(" or should be", " or")
    return f"{source}: '{'.'.join(where)}' {expected}{got}."


def _expected_type(problem: Any) -> str:
    """Turn "Input should be a valid integer, unable to parse …" into "should be a whole number"."""
    message = str(problem["msg"]).split(", unable to")[0]
    message = message.replace("Input should be", "should be").replace("Value error, ", "")
    message = re.sub(r"a valid dictionary( or instance of \w+)?", "a table", message)
    return message.replace("a valid integer", "a whole number").replace("a valid ", "a ")


def _closest(name: str, table: Sequence[str]) -> str | None:
    """Guess which setting was meant: one of the same table, or one of another table with its full name."""
    names = _fields(table)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if near:
        return near[0]
    full_names = {f"{t}.{f}": f for t in Study.model_fields for f in _fields([t])}
    match = difflib.get_close_matches(name, full_names.values(), n=1, cutoff=0.8)
    return next((full for full, field in full_names.items() if match and field == match[0]), None)


def _fields(table: Sequence[str]) -> list[str]:
    tables: dict[str, type[BaseModel]] = {
        "data": Data, "story": StorySettings, "recording": RecordingSettings, "models": ModelSettings,
        "features": FeatureSettings, "design": DesignSettings, "protocol": ProtocolSettings, "compare": CompareSettings, "inference": InferenceSettings, "partition": PartitionSettings,
    }  # fmt: skip
    if not table:
        return [name for name in Study.model_fields if name not in PERMISSIONS]
    model = AtlasSettings if tuple(table[:2]) == ("recording", "atlas") else tables.get(table[0])
    return list(model.model_fields) if model else []


def study_template() -> str:
    """Write a study file in which every setting stands, commented, with its default and what it means."""
    examples = {
        "story.files": '"story/{run}.TextGrid"',
        "recording.files": '"sub-{subject}/func/sub-{subject}_{run}_bold.nii.gz"',
        "recording.tr": "2.0",
        "compare.pairs": '[["base", "instruct"]]',
    }
    lines = [
        "# A study for langcortex. Lines that begin with # show a setting and its default; take the # away to change it.",
        "# Read it without running it: langcortex check THIS_FILE. Choices are explained in docs/choose.md.",
    ]
    lines += _template_lines("", Study, examples, skip=PERMISSIONS)
    for name, field in Study.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, SettingsTable):
            lines += ["", f"# {kind.__doc__}", f"[{name}]", *_template_lines(f"{name}.", kind, examples)]
            for inner, below in kind.model_fields.items():
                table = below.annotation
                if isinstance(table, type) and issubclass(table, SettingsTable):
                    full = f"{name}.{inner}"
                    lines += [
                        "",
                        f"# {table.__doc__}",
                        f"[{full}]",
                        *_template_lines(f"{full}.", table, examples),
                    ]
        if name == "recording":
            lines += ["", "# One [[models]] table a language model, in the order results show them."]
            for model, source in (
                ("base", "meta-llama/Llama-3.1-8B"),
                ("instruct", "meta-llama/Llama-3.1-8B-Instruct"),
            ):
                lines += ["[[models]]", f'name = "{model}"', f'source = "{source}"']
            lines += _template_lines("models.", ModelSettings, examples, skip=("name", "source"))
    return "\n".join(lines) + "\n"


def _template_lines(
    prefix: str, table: type[BaseModel], examples: Mapping[str, str], skip: Sequence[str] = ()
) -> list[str]:
    lines = []
    for name, field in table.model_fields.items():
        default = field.get_default(call_default_factory=True)
        if name in skip or isinstance(default, BaseModel) or (isinstance(default, list) and name == "models"):
            continue
        about = f"  # {field.description}" if field.description else ""
        example = examples.get(prefix + name)
        if example and prefix + name != "compare.pairs":
            lines.append(f"{name} = {example}{about}")
        else:
            lines.append(f"# {name} = {example or _toml(default)}{about}")
    return lines


def _toml(value: Any) -> str:
    """Write a default as TOML; "…" where TOML has no such value."""
    if value is None:
        return "…"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_toml(v) for v in value) + "]"
    if isinstance(value, dict):
        return "{}"
    return (
        f'"{value}"' if isinstance(value, str) else f"{value:.6g}" if isinstance(value, float) else str(value)
    )
