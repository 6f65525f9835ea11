"""Write the report: one HTML file with its figures inside, and the same figures as files."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import asdict
from importlib import resources
from pathlib import Path
from typing import Any

from langcortex.cache import atomic_write
from langcortex.encoding.protocol import Protocol
from langcortex.paths import as_path
from langcortex.report import prose, sections, tables
from langcortex.report.ablation import draw_ablation_picture
from langcortex.report.panels import Picture, draw_pictures
from langcortex.report.variance_partition import draw_partition_pictures
from langcortex.results.results import Results

RECIPE_CHOICES = ("test_runs", "inner", "gap", "choose_by", "delay_by")
PIXELS_PER_INCH = 101  # on the page
MAX_EMBEDDED = 6_500_000  # bytes of PNG: base64 adds a third, and the file must stay below 10 MB


def write_report(results: Results, folder: Path | str) -> list[Path]:
    """Write ``report.html``, which needs no other file and no network, and ``figures/*.png``.

    Parameters
    ----------
    results : of one study
    folder : created if needed

    Returns
    -------
    the paths, the report first; no file is left half written
    """
    folder = as_path(folder)
    pictures = [
        *draw_pictures(results),
        *draw_partition_pictures(results),
        *draw_ablation_picture(results.protocol, folder),
    ]
    page = render(results, pictures)
    paths = [folder / "report.html"]
    for picture in pictures:
        paths.append(folder / "figures" / picture.file)
        with atomic_write(paths[-1]) as draft:
            draft.write_bytes(picture.png)
    with atomic_write(paths[0]) as draft:
        draft.write_text(page, encoding="utf-8")
    return paths


def render(results: Results, pictures: Sequence[Picture]) -> str:
    """Fill in the template, with all text escaped, and return the page."""
    from jinja2 import Environment, StrictUndefined

    source = resources.files("langcortex.report").joinpath("template.html").read_text(encoding="utf-8")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(source).render(_context(results, pictures))


def _context(results: Results, pictures: Sequence[Picture]) -> dict[str, Any]:
    optional = (
        tables.make_audit_table(results),
        tables.make_delay_table(results),
        tables.make_chosen_layer_table(results),
    )
    lead, *summary = prose.write_summary(results)
    return {
        "name": results.name,
        "protocol": results.protocol,
        "lead": lead,
        "summary": summary,
        "warnings": results.warnings,
        "data_tables": [
            *tables.make_count_tables(results.counts),
            *(table for table in optional if table is not None),
        ],
        "findings": results.findings,
        "figures": _embed(pictures),
        "has_maps": results.space is not None and bool(results.maps),
        "score_table": tables.make_score_table(results),
        "full_table": tables.make_full_table(results),
        "sections": sections.make_sections(results),
        "methods": prose.write_methods(results),
        "protocol_items": _protocol_items(results.protocol),
        "settings": tables.format_toml(results.settings),
        "references": prose.list_references(results),
        "versions": list(results.versions.items()),
    }


def _protocol_items(protocol: Protocol) -> list[tuple[str, str]]:
    """List every choice of the protocol; those that the published recipe fixes say so."""
    items = {key: tables.format_value(value) for key, value in asdict(protocol).items()}
    if protocol.is_published:
        items |= dict.fromkeys(RECIPE_CHOICES, "as in the published recipe")
    return list((items | {"leaks": " ".join(protocol.leaks) or "none known"}).items())


def _embed(pictures: Sequence[Picture]) -> list[dict[str, Any]]:
    """Encode images as text, as long as the page stays small enough to be mailed."""
    figures: list[dict[str, Any]] = []
    total = 0
    for picture in pictures:
        total += len(picture.png)
        data = base64.b64encode(picture.png).decode("ascii") if total <= MAX_EMBEDDED else ""
        # an inch has the same width in every figure, so that all letters have the same size
        width = round(PIXELS_PER_INCH * picture.width)
        figures.append(
            {
                "file": picture.file,
                "title": picture.title,
                "caption": picture.caption,
                "data": data,
                "width": width,
            }
        )
    return figures
