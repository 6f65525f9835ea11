"""What the description of derivatives says about its pipeline, apart from the data that the pipeline read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

FMRIPREP = (
    "Esteban, O., et al. (2019). fMRIPrep: a robust preprocessing pipeline for functional MRI. "
    "Nature Methods, 16, 111–116. doi:10.1038/s41592-018-0235-4"
)


def is_derivative(description: Mapping[str, Any]) -> bool:
    """Whether a dataset_description.json is that of derivatives, whose acknowledgement is the pipeline's.

    >>> is_derivative({"Name": "fMRIPrep - fMRI PREProcessing workflow", "GeneratedBy": [{"Name": "fMRIPrep"}]})
    True
    """
    kind = str(description.get("DatasetType", "")).lower()
    return kind == "derivative" or any(description.get(key) for key in ("GeneratedBy", "PipelineDescription"))


def source_datasets(description: Mapping[str, Any]) -> list[str]:
    """List the DOI or the address of each dataset that derivatives were made from.

    >>> source_datasets({"SourceDatasets": [{"URL": "https://doi.org/10.1/a", "DOI": "10.1/a"}]})
    ['doi:10.1/a']
    """
    entries = description.get("SourceDatasets")
    names = []
    for entry in entries if isinstance(entries, list) else []:
        doi, url = (str(entry.get(key) or "") if isinstance(entry, Mapping) else "" for key in ("DOI", "URL"))
        name = f"doi:{doi.removeprefix('doi:')}" if doi else url
        if name and name not in names:
            names.append(name)
    return names


def cite_pipeline(description: Mapping[str, Any], folder: Path) -> str:
    """Return the pipelines of derivatives with their versions, how they ask to be cited, and where their text for papers is."""
    names = _pipelines(description)
    sentences = [f"{', '.join(names) or 'fMRIPrep (no version is stated)'}."]
    if not names or "fmriprep" in " ".join(names).lower():
        sentences.append(f"{FMRIPREP}.")
    if description.get("HowToAcknowledge"):
        sentences.append(f'It asks: "{" ".join(str(description["HowToAcknowledge"]).split())}"')
    text = next((p for p in (folder / "logs" / "CITATION.md", folder / "CITATION.md") if p.is_file()), None)
    if text is not None:
        sentences.append(f"Its text for the methods is in {text.relative_to(folder)}.")
    return " ".join(sentences)


def _pipelines(description: Mapping[str, Any]) -> list[str]:
    """List the pipelines, with their versions; older descriptions name one, as ``PipelineDescription``."""
    entries = description.get("GeneratedBy") or description.get("PipelineDescription") or []
    pipelines = [entries] if isinstance(entries, Mapping) else entries if isinstance(entries, list) else []
    return [
        f"{entry['Name']} {entry.get('Version') or ''}".strip()
        for entry in pipelines
        if isinstance(entry, Mapping) and entry.get("Name")
    ]
