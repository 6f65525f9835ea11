"""Tables of the report: rows of strings, made from results."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from langcortex.results.provenance import MINUS
from langcortex.results.results import Results, tidy

MAX_ROWS = 2000
MAX_REGIONS = 14  # shown on the page; the files on disk list all of them


@dataclass(frozen=True)
class Group:
    """Rows of a table that belong together.

    Attributes
    ----------
    title : written above them, may be empty
    rows : of cells
    """

    title: str
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Table:
    """A table as the template draws it.

    Attributes
    ----------
    title : above the table
    head : column names
    groups : of rows
    n_text : number of columns, from the left, that hold text; the others hold numbers and are aligned to the right
    note : a sentence below the table
    """

    title: str
    head: tuple[str, ...]
    groups: tuple[Group, ...]
    n_text: int = 1
    note: str = ""


@dataclass(frozen=True)
class Section:
    """A part of the report.

    Attributes
    ----------
    title : its heading
    paragraphs : sentences
    tables : drawn below the paragraphs
    """

    title: str
    paragraphs: tuple[str, ...]
    tables: tuple[Table, ...] = ()


def make_table(
    title: str, head: Sequence[str], rows: Sequence[Sequence[str]], n_text: int = 1, note: str = ""
) -> Table:
    """Make a table with a single group of rows."""
    return Table(title, tuple(head), (Group("", tuple(tuple(row) for row in rows)),), n_text, note)


def format_number(value: float, digits: int = 3) -> str:
    """Format a number with a real minus sign.

    >>> format_number(-0.1234), format_number(float("nan"))
    ('−0.123', 'undefined')
    """
    if not np.isfinite(value):
        return "undefined"
    text = f"{value:.{digits}f}"
    return text.replace("-", MINUS) if float(text) else text.removeprefix("-")


def format_p(p: float) -> str:
    """Format a p value, never as 0.

    >>> format_p(0.03), format_p(1e-6)
    ('0.0300', '< 0.0001')
    """
    return "< 0.0001" if p < 0.0001 else format_number(p, 4)


def format_value(value: Any) -> str:
    """Format a JSON value for a reader: digits in groups of three, lists with commas."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:g}".replace("-", MINUS)
    if isinstance(value, Mapping):
        return "; ".join(f"{key}: {format_value(entry)}" for key, entry in value.items()) or "none"
    if isinstance(value, (list, tuple)):
        return ", ".join(format_value(entry) for entry in value) or "none"
    return str(value)


def make_count_tables(counts: Mapping[str, Any]) -> list[Table]:
    """Lay out counts: plain ones share a table, each nested mapping has its own."""
    flat = [(str(k), format_value(v)) for k, v in counts.items() if not isinstance(v, Mapping)]
    tables = [make_table("All together", ("Count", ""), flat)] if flat else []
    return tables + [_nested(str(k), v) for k, v in counts.items() if isinstance(v, Mapping) and v]


def _nested(name: str, counts: Mapping[str, Any]) -> Table:
    """Lay out a mapping of mappings as rows and columns, any other as two columns."""
    title = f"By {name.removesuffix('s')}" if name == "subjects" else name.capitalize()
    if not all(isinstance(v, Mapping) for v in counts.values()):
        return make_table(
            title, (name.capitalize(), ""), [(str(k), format_value(v)) for k, v in counts.items()]
        )
    columns = list(dict.fromkeys(str(c) for v in counts.values() for c in v))
    rows = [(str(k), *(format_value(v[c]) if c in v else "" for c in columns)) for k, v in counts.items()]
    return make_table(title, (name.capitalize().removesuffix("s"), *columns), rows)


def make_audit_table(results: Results) -> Table | None:
    """Show how each model's tokenizer split the words; None where nothing was counted."""
    if not any(results.audit.values()):
        return None
    columns = list(dict.fromkeys(key for counts in results.audit.values() for key in counts))
    rows = [
        (model, *(format_value(counts[c]) if c in counts else "" for c in columns))
        for model, counts in results.audit.items()
    ]
    return make_table("Tokenizer audit", ("Model", *columns), rows)


def make_delay_table(results: Results) -> Table | None:
    """Show the delay of every outer fold; None where there are no delays."""
    if not any(results.delays.values()):
        return None
    name = "Subject and model" if results.protocol.leaks else "Subject"
    rows = [(label, ", ".join(f"{d:g}" for d in delays)) for label, delays in results.delays.items()]
    per = "run" if results.protocol.is_published else "outer fold"
    return make_table("Delays", (name, f"Seconds, one per {per}"), rows, n_text=2)


def make_chosen_layer_table(results: Results) -> Table | None:
    """Show the layer chosen in the training rows of every outer fold; None where none was."""
    rows = [
        (model, subject, ", ".join(map(str, layers)))
        for model, by_subject in results.chosen_layers.items()
        for subject, layers in by_subject.items()
        if layers
    ]
    head = ("Model", "Subject", "Layers, one per outer fold")
    return make_table("Layers chosen in training", head, rows, n_text=3) if rows else None


def find_best_layer(results: Results, model: str) -> int | None:
    """Return a model's best layer, or None where it has no defined score."""
    if not np.isfinite(results.curve(model).to_numpy(np.float64)).any():
        return None
    return results.best_layer(model)


def pooled_scores(results: Results, model: str, metric: str, layer: int | None = None) -> dict[str, float]:
    """Average the scores over all runs over subjects: region → value, NaN where none is defined.

    Parameters
    ----------
    metric : "r", "r2", "r_chosen" or "r2_chosen"
    layer : None for controls and for the layer chosen in training
    """
    scores = results.scores
    rows = scores[(scores.model == model) & (scores.metric == metric) & (scores.run == "all")]
    by_subject = rows[rows.subject != "average"]
    rows = by_subject if len(by_subject) else rows
    rows = rows[rows.layer.isna()] if layer is None else rows[rows.layer == layer]
    return {str(k): float(v) for k, v in rows.groupby("region", sort=False)["value"].mean().items()}


@dataclass(frozen=True, eq=False)
class ScoreRow:
    """A feature space that has a row in the table of scores.

    Attributes
    ----------
    name : of the model or control
    label : its layer, in words
    metrics : names of its r and R² in the scores
    layer : None for controls and for the layer chosen in training
    values : (n_targets,) map of r averaged over subjects, if there is one
    """

    name: str
    label: str
    metrics: tuple[str, str]
    layer: int | None
    values: np.ndarray | None


def list_score_rows(results: Results) -> list[ScoreRow]:
    """List every model's best layer and its layer chosen in training, then the controls."""
    score_rows = []
    for model in results.models:
        best = find_best_layer(results, model)
        if best is not None:
            values = select_layer_map(results, model, best)
            score_rows.append(ScoreRow(model, f"{best} (best)", ("r", "r2"), best, values))
        if (results.scores.metric[results.scores.model == model] == "r_chosen").any():
            chosen = results.chosen.get(model)
            score_rows.append(ScoreRow(model, "chosen in training", ("r_chosen", "r2_chosen"), None, chosen))
    for name in results.controls:
        maps = results.maps.get(name)
        score_rows.append(ScoreRow(name, "control", ("r", "r2"), None, None if maps is None else maps[0]))
    return score_rows


def select_layer_map(results: Results, model: str, layer: int) -> np.ndarray | None:
    """Return the map of one layer, or None where there are no maps."""
    if model not in results.maps:
        return None
    values: np.ndarray = results.maps[model][np.asarray(results.layers[model]).tolist().index(layer)]
    return values


def region_masks(results: Results) -> dict[str, np.ndarray | None]:
    """Return the regions that were scored, each with a mask of its targets or None where there is no space."""
    names = [str(name) for name in dict.fromkeys(results.scores.region)]
    if results.space is None:
        return dict.fromkeys(names)
    masks = {"brain": np.ones(results.space.n_targets, dtype=bool), **results.space.regions}
    return {name: masks.get(name) for name in names}


def select_regions(results: Results) -> tuple[list[str], str]:
    """Select the regions that the page shows: all, or the best and worst where there are many.

    All targets together and the region that the study is about are always shown.

    Returns
    -------
    names, and a sentence about the regions left out, with a space before it
    """
    names = list(region_masks(results))
    if len(names) <= MAX_REGIONS:
        return names, ""
    model = next(iter(results.models or results.controls))
    scores = pooled_scores(results, model, "r_chosen")
    scores = scores or pooled_scores(results, model, "r", find_best_layer(results, model))
    ranked = sorted((n for n in names if np.isfinite(scores.get(n, np.nan))), key=lambda n: -scores[n])
    half = (MAX_REGIONS - 2) // 2
    selection = {"brain", results.region, *ranked[:half], *ranked[-half:]}
    in_order = dict.fromkeys(["brain", results.region, *ranked, *names])
    return [n for n in in_order if n in selection], (
        f" Of {len(names)} regions, the {half} with the highest and the {half} with the lowest r of {model} are shown; the files list all."
    )


def format_undefined(values: np.ndarray | None, mask: np.ndarray | None) -> str:
    """Format how many targets of a region have no value, e.g. "12 of 3,000".

    >>> format_undefined(np.array([0.1, np.nan, 0.2]), np.array([True, True, False]))
    '1 of 2'
    """
    if values is None or mask is None:
        return "not known"
    return f"{int(np.isnan(values[mask]).sum()):,} of {int(mask.sum()):,}"


def make_score_table(results: Results) -> Table:
    """Show best layers, chosen layers and controls by region: r, R², and the number of undefined targets."""
    score_rows, (names, omission) = list_score_rows(results), select_regions(results)
    all_masks = region_masks(results)
    masks = {name: all_masks[name] for name in names}
    groups = []
    for i, (title, digits) in enumerate((("Pearson r", 3), ("R²", 4))):
        rows = []
        for row in score_rows:
            scores = pooled_scores(results, row.name, row.metrics[i], row.layer)
            if scores:
                cells = (format_number(scores.get(region, np.nan), digits) for region in masks)
                rows.append((row.name, row.label, *cells))
        if rows:
            groups.append(Group(title, tuple(rows)))
    counts = [
        (row.name, row.label, *(format_undefined(row.values, mask) for mask in masks.values()))
        for row in score_rows
    ]
    groups.append(Group("Undefined targets, left out", tuple(counts)))
    head = ("Feature space", "Layer", *masks)
    return Table("Scores by region", head, tuple(groups), 2, _score_note(results) + omission)


def _score_note(results: Results) -> str:
    note = (
        f"Mean over {format_n_subjects(results)} of the mean over each region's defined targets. "
        "The best layer is picked by these same scores, which are therefore optimistic; the layer chosen in training is not. "
        "A target is undefined if no subject has a value for it."
    )
    if results.space is None:
        note += " Where subjects have different targets, see the counts of each subject above."
    return note


def format_n_subjects(results: Results) -> str:
    """Format the number of subjects, e.g. "3 subjects"."""
    n = len(set(results.scores.subject) - {"average"}) or 1
    return f"{n} subject{'s' if n > 1 else ''}"


def make_full_table(results: Results) -> Table:
    """Show every score over all runs, up to `MAX_ROWS` of them."""
    rows = tidy(results.scores[results.scores.run == "all"])
    note = f"The first {MAX_ROWS:,} of {len(rows):,} rows; scores.tsv has all of them, and every run."
    cells = [
        (
            r.subject,
            r.model,
            "" if pd.isna(r.layer) else str(r.layer),
            r.region,
            r.metric,
            format_number(r.value, 4),
        )
        for r in rows.head(MAX_ROWS).itertuples()
    ]
    head = ("Subject", "Feature space", "Layer", "Region", "Metric", "Value")
    return make_table(
        "Pooled scores",
        head,
        cells,
        5,
        note if len(rows) > MAX_ROWS else "Scores of single runs are in scores.tsv.",
    )


def format_toml(settings: Mapping[str, Any], path: tuple[str, ...] = ()) -> str:
    """Format settings as in a study file; settings that are not set are comments.

    >>> print(format_toml({"seed": 0, "models": [{"source": "gpt2"}], "design": {"rows": "scans"}}))
    seed = 0
    <BLANKLINE>
    [[models]]
    source = "gpt2"
    <BLANKLINE>
    [design]
    rows = "scans"
    """
    plain, below = [], []
    for key, value in settings.items():
        keys = (*path, str(key))
        if value is None:
            plain.append(f"# {key} is not set")
        elif isinstance(value, Mapping):
            below += _format_toml_table(f"[{'.'.join(keys)}]", value, keys)
        elif isinstance(value, (list, tuple)) and value and all(isinstance(v, Mapping) for v in value):
            for entry in value:
                below += _format_toml_table(f"[[{'.'.join(keys)}]]", entry, keys)
        else:
            plain.append(f"{key} = {json.dumps(value, ensure_ascii=False, default=str)}")
    return "\n".join(plain + below).strip("\n")


def _format_toml_table(head: str, settings: Mapping[str, Any], path: tuple[str, ...]) -> list[str]:
    """Format a table under its head, which is left out where the table holds nothing but other tables."""
    text = format_toml(settings, path)
    return ["", text] if text.startswith("[") else ["", head, text] if text else ["", head]
