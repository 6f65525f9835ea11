"""Tables of the report: strings in rows, made from results."""

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
MAX_AREAS = 14  # regions that a page shows; files have all


@dataclass(frozen=True)
class Group:
    """Rows of a table that belong together.

    Attributes
    ----------
    title : written above them, or nothing
    rows : of cells
    """

    title: str
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Table:
    """What the template draws.

    Attributes
    ----------
    title : of the table
    head : column names
    groups : of rows
    n_text : how many columns from the left hold text; the others hold numbers and are set to the right
    note : a sentence below
    """

    title: str
    head: tuple[str, ...]
    groups: tuple[Group, ...]
    n_text: int = 1
    note: str = ""


def table(
    title: str, head: Sequence[str], rows: Sequence[Sequence[str]], n_text: int = 1, note: str = ""
) -> Table:
    """Make a table of one group."""
    return Table(title, tuple(head), (Group("", tuple(tuple(row) for row in rows)),), n_text, note)


def number(value: float, digits: int = 3) -> str:
    """Write a number with a real minus sign.

    >>> number(-0.1234), number(float("nan"))
    ('−0.123', 'undefined')
    """
    if not np.isfinite(value):
        return "undefined"
    text = f"{value:.{digits}f}"
    return text.replace("-", MINUS) if float(text) else text.removeprefix("-")


def p_text(p: float) -> str:
    """Write a p value, never as 0.

    >>> p_text(0.03), p_text(1e-6)
    ('0.0300', '< 0.0001')
    """
    return "< 0.0001" if p < 0.0001 else number(p, 4)


def plain_value(value: Any) -> str:
    """Write a JSON value for a reader: whole numbers in groups of three, lists with commas."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:g}".replace("-", MINUS)
    if isinstance(value, Mapping):
        return "; ".join(f"{key}: {plain_value(one)}" for key, one in value.items()) or "none"
    if isinstance(value, (list, tuple)):
        return ", ".join(plain_value(one) for one in value) or "none"
    return str(value)


def count_tables(counts: Mapping[str, Any]) -> list[Table]:
    """Lay out nested counts: plain ones in one table, each nested one in a table of its own."""
    flat = [(str(k), plain_value(v)) for k, v in counts.items() if not isinstance(v, Mapping)]
    out = [table("All together", ("Count", ""), flat)] if flat else []
    return out + [_nested(str(k), v) for k, v in counts.items() if isinstance(v, Mapping) and v]


def _nested(name: str, counts: Mapping[str, Any]) -> Table:
    """Lay out a mapping of mappings as rows and columns, any other as two columns."""
    title = f"By {name.removesuffix('s')}" if name == "subjects" else name.capitalize()
    if not all(isinstance(v, Mapping) for v in counts.values()):
        return table(title, (name.capitalize(), ""), [(str(k), plain_value(v)) for k, v in counts.items()])
    columns = list(dict.fromkeys(str(c) for v in counts.values() for c in v))
    rows = [(str(k), *(plain_value(v[c]) if c in v else "" for c in columns)) for k, v in counts.items()]
    return table(title, (name.capitalize().removesuffix("s"), *columns), rows)


def audit_table(results: Results) -> Table | None:
    """What each model's tokenizer did to the words."""
    if not any(results.audit.values()):
        return None
    columns = list(dict.fromkeys(key for counts in results.audit.values() for key in counts))
    rows = [
        (model, *(plain_value(counts[c]) if c in counts else "" for c in columns))
        for model, counts in results.audit.items()
    ]
    return table("Tokenizer audit", ("Model", *columns), rows)


def delay_table(results: Results) -> Table | None:
    """The delay of every outer fold."""
    if not any(results.delays.values()):
        return None
    what = "Subject and model" if results.protocol.leaks else "Subject"
    rows = [(who, ", ".join(f"{d:g}" for d in delays)) for who, delays in results.delays.items()]
    per = "run" if results.protocol.is_published else "outer fold"
    return table("Delays", (what, f"Seconds, one per {per}"), rows, n_text=2)


def chosen_layer_table(results: Results) -> Table | None:
    """The layer chosen from the training rows of every outer fold."""
    rows = [
        (model, subject, ", ".join(map(str, layers)))
        for model, by_subject in results.chosen_layers.items()
        for subject, layers in by_subject.items()
        if layers
    ]
    head = ("Model", "Subject", "Layers, one per outer fold")
    return table("Layers chosen in training", head, rows, n_text=3) if rows else None


def best_layer(results: Results, model: str) -> int | None:
    """Name a model's best layer, or None where it has no defined score."""
    if not np.isfinite(results.curve(model).to_numpy(np.float64)).any():
        return None
    return results.best_layer(model)


def pooled(results: Results, model: str, metric: str, layer: int | None = None) -> dict[str, float]:
    """Average pooled scores over subjects: region → value, NaN where none is defined.

    Parameters
    ----------
    metric : "r", "r2", "r_chosen" or "r2_chosen"
    layer : None for controls and for the layer chosen in training
    """
    scores = results.scores
    rows = scores[(scores.model == model) & (scores.metric == metric) & (scores.run == "all")]
    people = rows[rows.subject != "average"]
    rows = people if len(people) else rows
    rows = rows[rows.layer.isna()] if layer is None else rows[rows.layer == layer]
    return {str(k): float(v) for k, v in rows.groupby("region", sort=False)["value"].mean().items()}


@dataclass(frozen=True, eq=False)
class Line:
    """A feature space whose scores are told.

    Attributes
    ----------
    name : of the model or control
    what : which layer, in words
    metrics : names of its r and R² in the scores
    layer : None for controls and for the layer chosen in training
    values : (n_targets,) its map of r over subjects, if there is one
    """

    name: str
    what: str
    metrics: tuple[str, str]
    layer: int | None
    values: np.ndarray | None


def told_lines(results: Results) -> list[Line]:
    """List every model's best layer and its layer chosen in training, then the controls."""
    out = []
    for model in results.models:
        best = best_layer(results, model)
        if best is not None:
            out.append(Line(model, f"{best} (best)", ("r", "r2"), best, layer_values(results, model, best)))
        if (results.scores.metric[results.scores.model == model] == "r_chosen").any():
            chosen = results.chosen.get(model)
            out.append(Line(model, "chosen in training", ("r_chosen", "r2_chosen"), None, chosen))
    for name in results.controls:
        rows = results.maps.get(name)
        out.append(Line(name, "control", ("r", "r2"), None, None if rows is None else rows[0]))
    return out


def layer_values(results: Results, model: str, layer: int) -> np.ndarray | None:
    """Give the map of one layer, if there are maps."""
    if model not in results.maps:
        return None
    values: np.ndarray = results.maps[model][np.asarray(results.layers[model]).tolist().index(layer)]
    return values


def regions(results: Results) -> dict[str, np.ndarray | None]:
    """Name the regions that were scored, and which targets each covers, where that is known."""
    names = [str(name) for name in dict.fromkeys(results.scores.region)]
    if results.space is None:
        return dict.fromkeys(names)
    known = {"brain": np.ones(results.space.n_targets, dtype=bool), **results.space.regions}
    return {name: known.get(name) for name in names}


def shown_areas(results: Results) -> tuple[list[str], str]:
    """Choose the regions that a page shows: all, or of many the one in question and those with the highest and lowest scores.

    Returns
    -------
    names, and a sentence that says what was left out, with a space before it
    """
    names = list(regions(results))
    if len(names) <= MAX_AREAS:
        return names, ""
    model = next(iter(results.models or results.controls))
    found = pooled(results, model, "r_chosen") or pooled(results, model, "r", best_layer(results, model))
    ranked = sorted((n for n in names if np.isfinite(found.get(n, np.nan))), key=lambda n: -found[n])
    half = (MAX_AREAS - 2) // 2
    kept = {"brain", results.region, *ranked[:half], *ranked[-half:]}
    shown = [n for n in ("brain", results.region, *ranked, *names) if n in kept]
    shown = list(dict.fromkeys(shown))
    return shown, (
        f" Of {len(names)} regions, those with the {half} highest and lowest r of {model} are shown; the files have all."
    )


def undefined_text(values: np.ndarray | None, inside: np.ndarray | None) -> str:
    """Count a region's targets without a value, e.g. "12 of 3,000".

    >>> undefined_text(np.array([0.1, np.nan, 0.2]), np.array([True, True, False]))
    '1 of 2'
    """
    if values is None or inside is None:
        return "not known"
    return f"{int(np.isnan(values[inside]).sum()):,} of {int(inside.sum()):,}"


def score_table(results: Results) -> Table:
    """Best and chosen layers and controls by region: r, R², and targets left out."""
    lines, (shown, more) = told_lines(results), shown_areas(results)
    areas = {name: inside for name, inside in regions(results).items() if name in shown}
    areas = {name: areas[name] for name in shown}
    groups = []
    for i, (title, digits) in enumerate((("Pearson r", 3), ("R²", 4))):
        rows = []
        for line in lines:
            found = pooled(results, line.name, line.metrics[i], line.layer)
            if found:
                cells = (number(found.get(area, np.nan), digits) for area in areas)
                rows.append((line.name, line.what, *cells))
        if rows:
            groups.append(Group(title, tuple(rows)))
    counts = [(x.name, x.what, *(undefined_text(x.values, m) for m in areas.values())) for x in lines]
    groups.append(Group("Targets undefined and left out", tuple(counts)))
    note = (
        f"Mean over {people_text(results)} of the mean over the defined targets of each region. "
        "The best layer is picked on the scores it has and is a description; the layer chosen in training is not. "
        "Undefined targets are those without a value in any subject."
    )
    if results.space is None:
        note += " Where subjects have different targets, see the counts of each subject above."
    note += more
    return Table("Scores by region", ("Feature space", "Layer", *areas), tuple(groups), 2, note)


def people_text(results: Results) -> str:
    """Say how many subjects there are, e.g. "3 subjects"."""
    n = len(set(results.scores.subject) - {"average"}) or 1
    return f"{n} subject{'s' if n > 1 else ''}"


def full_table(results: Results) -> Table:
    """Every pooled score, up to `MAX_ROWS` of them."""
    rows = tidy(results.scores[results.scores.run == "all"])
    note = f"The first {MAX_ROWS:,} of {len(rows):,} rows; scores.tsv has all of them, and every run."
    cells = [
        (r.subject, r.model, "" if pd.isna(r.layer) else str(r.layer), r.region, r.metric, number(r.value, 4))
        for r in rows.head(MAX_ROWS).itertuples()
    ]
    head = ("Subject", "Feature space", "Layer", "Region", "Metric", "Value")
    return table("Pooled scores", head, cells, 5, note if len(rows) > MAX_ROWS else "Runs are in scores.tsv.")


def toml_text(settings: Mapping[str, Any], path: tuple[str, ...] = ()) -> str:
    """Write settings as in a study file; what is not set is a comment.

    >>> print(toml_text({"seed": 0, "models": [{"source": "gpt2"}], "design": {"rows": "scans"}}))
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
        where = (*path, str(key))
        if value is None:
            plain.append(f"# {key} is not set")
        elif isinstance(value, Mapping):
            below += _toml_table(f"[{'.'.join(where)}]", value, where)
        elif isinstance(value, (list, tuple)) and value and all(isinstance(v, Mapping) for v in value):
            for one in value:
                below += _toml_table(f"[[{'.'.join(where)}]]", one, where)
        else:
            plain.append(f"{key} = {json.dumps(value, ensure_ascii=False, default=str)}")
    return "\n".join(plain + below).strip("\n")


def _toml_table(head: str, settings: Mapping[str, Any], where: tuple[str, ...]) -> list[str]:
    """Write a table's head, unless it holds nothing but other tables."""
    text = toml_text(settings, where)
    return ["", text] if text.startswith("[") else ["", head, text] if text else ["", head]
