"""A whole study, from settings to results on disk."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Any

import pandas as pd
from threadpoolctl import threadpool_limits

from langcortex.cache import NOTES, atomic_write, digest, remove_drafts, require_writable
from langcortex.datasets import Corpus
from langcortex.encoding.protocol import PUBLISHED
from langcortex.errors import SettingsError
from langcortex.features.models.weights import cache_folder
from langcortex.paths import as_path, safe_cells
from langcortex.progress import Progress, silent
from langcortex.report import write_report
from langcortex.results.files import write_summary, write_tables
from langcortex.results.manifest import describe_strangers, update_manifest
from langcortex.results.results import Results
from langcortex.ridge.backend import Backend
from langcortex.study.clock import find_sampled_lag, raise_clock_error
from langcortex.study.controls import check_names
from langcortex.study.corpus import corpus_remarks, corpus_source, make_protocol, open_corpus, read_words
from langcortex.study.feature_spaces import Spaces, make_spaces
from langcortex.study.fit import fit_study
from langcortex.study.replicate import replicate_study
from langcortex.study.settings import Study
from langcortex.study.user_code import require_permission


def run_study(
    study: Study,
    progress: Progress | None = None,
    corpus: Corpus | None = None,
    spaces: Spaces | None = None,
) -> Results:
    """Run a study: read, extract, align, fit, score, compare.

    Finished features go to the user's cache and finished fits to ``kept/`` in the output folder, each under a
    name made of everything that decides it: a study that was interrupted goes on where it stopped, and a
    study that was changed computes what the change touches.

    Parameters
    ----------
    study : from `langcortex.study.settings_file.read_study`
    progress : called as work is done
    corpus : in place of the corpus that the study names
    spaces : from `langcortex.study.feature_spaces.make_spaces` for the same study; no model is loaded then

    Returns
    -------
    Results; nothing but ``kept/`` has been written
    """
    progress, start = progress or silent, time.time()
    if not study.models and not study.features.controls:
        raise SettingsError("The study names neither a model nor a control: there is nothing to fit.")
    require_permission(study)
    corpus = open_corpus(study) if corpus is None else corpus
    protocol = make_protocol(study, corpus)
    if protocol.is_published and not study.models:
        raise SettingsError(f"The preset '{PUBLISHED}' needs a model.")
    check_names(study, corpus)
    _prepare_output(study.output_folder, start)
    story, unmatched = read_words(study, corpus)
    if unmatched is not None:
        _write_unmatched(unmatched, study.output_folder)
    Backend(study.fit.on, study.fit.regime).check_device()
    subjects = list(corpus.subjects())
    if not subjects:
        raise SettingsError("The study has no subjects.")
    with threadpool_limits(limits=1):
        if study.recording.clock == "refuse":  # before a model reads the story for hours
            lag = find_sampled_lag(study, corpus, story, subjects)
            if lag is not None and lag.is_off:
                raise_clock_error(lag)
        if spaces is None:
            spaces = make_spaces(study, corpus, story, protocol, progress)
        fit = replicate_study if protocol.is_published else fit_study
        results = fit(study, corpus, story, subjects, spaces, protocol, progress)
    written = ("tokens.tsv",) * bool(study.models) + ("text_alignment.tsv",) * (unmatched is not None)
    return dataclasses.replace(
        results,
        source=corpus_source(corpus),
        warnings=(*results.warnings, *story.remarks, *corpus_remarks(corpus)),
        kept_results=tuple(sorted({*results.kept_results, *spaces.kept_results})),
        inputs={
            "story": digest(story.text, story.onset, story.duration, story.sentence, story.run),
            **{f"model {name}": revision for name, revision in spaces.revisions.items()},
            **results.inputs,
        },
        files=(*written, *results.files),
    )


def _prepare_output(folder: Path, start: float) -> None:
    """Check that results can be written, before hours of work, and remove the drafts of runs that were killed."""
    require_writable(folder)
    for place in (folder, cache_folder() / "features"):
        remove_drafts(place, start)


def _write_unmatched(table: pd.DataFrame, folder: Path) -> None:
    """Write the words of the text and of the labels that did not align into ``text_alignment.tsv``."""
    with atomic_write(folder / "text_alignment.tsv") as draft:
        safe_cells(table).to_csv(draft, sep="\t", index=False, na_rep="n/a")


def write_results(results: Results, folder: Path | str) -> Path:
    """Write tables, maps, figures, the report and the manifest; every file whole or not at all.

    Files that an earlier run wrote, and this one does not, are removed if nobody changed them. All others stay; those that no
    manifest entry explains are named in a note and in the summary.

    Returns
    -------
    the report's path
    """
    folder = as_path(folder)
    before = [path for path in (folder / name for name in results.files) if path.is_file()]
    paths = [*before, *write_tables(results, folder), *write_report(results, folder)]
    facts: dict[str, Any] = {
        "study": results.name,
        "inputs": results.inputs,
        "kept_results": results.kept_results,
    }
    strangers = update_manifest(folder, "run", paths, **facts)
    if strangers:
        note = describe_strangers(folder, strangers)
        NOTES.warning(note)
        write_summary(dataclasses.replace(results, warnings=(*results.warnings, note)), folder)
        update_manifest(folder, "run", paths, **facts)
    return folder / "report.html"
