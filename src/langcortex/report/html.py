"""Write the report: one HTML file that carries its figures, and the same figures on disk."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import asdict
from importlib import resources
from pathlib import Path
from typing import Any

from langcortex.cache import atomic_write
from langcortex.encoding.protocol import Protocol
from langcortex.report import prose as sentences
from langcortex.report import sections as tested
from langcortex.report import tables
from langcortex.report.ablation import ablation_pictures
from langcortex.report.panels import Picture, pictures
from langcortex.report.variance_partition import partition_pictures
from langcortex.results.results import Results

OF_THE_RECIPE = ("test_runs", "inner", "gap", "choose_by", "delay_by")
PIXELS = 101  # an inch of a figure on the page
MAX_EMBEDDED = 6_500_000  # bytes of PNG; base64 makes a third more of them, and the file stays below 10 MB


def write_report(results: Results, folder: Path) -> list[Path]:
    """Write ``report.html``, which needs no other file and no network, and ``figures/*.png``.

    Parameters
    ----------
    results : of one study
    folder : made if it is not there

    Returns
    -------
    the paths, the report first; every file is whole or not there
    """
    drawn = [*pictures(results), *partition_pictures(results), *ablation_pictures(results.protocol, folder)]
    page = render(results, drawn)
    paths = [folder / "report.html"]
    for picture in drawn:
        paths.append(folder / "figures" / picture.file)
        with atomic_write(paths[-1]) as draft:
            draft.write_bytes(picture.png)
    with atomic_write(paths[0]) as draft:
        draft.write_text(page, encoding="utf-8")
    return paths


def render(results: Results, drawn: Sequence[Picture]) -> str:
    """Fill the template; all text is escaped."""
    from jinja2 import Environment, StrictUndefined

    source = resources.files("langcortex.report").joinpath("template.html").read_text(encoding="utf-8")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(source).render(_context(results, drawn))


def _context(results: Results, drawn: Sequence[Picture]) -> dict[str, Any]:
    optional = (
        tables.audit_table(results),
        tables.delay_table(results),
        tables.chosen_layer_table(results),
    )
    read, *found = sentences.summary_sentences(results)
    return {
        "name": results.name,
        "protocol": results.protocol,
        "read": read,
        "found": found,
        "warnings": results.warnings,
        "data_tables": [*tables.count_tables(results.counts), *(t for t in optional if t is not None)],
        "findings": results.findings,
        "figures": _embedded(drawn),
        "has_maps": results.space is not None and bool(results.maps),
        "score_table": tables.score_table(results),
        "full_table": tables.full_table(results),
        "sections": tested.sections(results),
        "methods": sentences.methods_sentences(results),
        "protocol_items": _protocol_items(results.protocol),
        "settings": tables.toml_text(results.settings),
        "references": sentences.references(results),
        "versions": list(results.versions.items()),
    }


def _protocol_items(protocol: Protocol) -> list[tuple[str, str]]:
    """List every field; those that a published recipe decides in its own way say so."""
    items = {key: tables.plain_value(value) for key, value in asdict(protocol).items()}
    if protocol.is_published:
        items |= dict.fromkeys(OF_THE_RECIPE, "as in the published recipe")
    return list((items | {"leaks": " ".join(protocol.leaks) or "none known"}).items())


def _embedded(drawn: Sequence[Picture]) -> list[dict[str, Any]]:
    """Turn images into text, as long as the file stays small enough to be mailed."""
    out: list[dict[str, Any]] = []
    total = 0
    for picture in drawn:
        total += len(picture.png)
        data = base64.b64encode(picture.png).decode("ascii") if total <= MAX_EMBEDDED else ""
        # one inch is as wide in every figure, so that letters are of one size
        width = round(PIXELS * picture.width)
        out.append(
            {
                "file": picture.file,
                "title": picture.title,
                "caption": picture.caption,
                "data": data,
                "width": width,
            }
        )
    return out
