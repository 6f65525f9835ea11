"""A study that is run and audited: results with findings and, for the published recipe, its ablation."""

from __future__ import annotations

from dataclasses import replace

from langcortex.audit.ablation import ablate, write_ablation
from langcortex.audit.findings import sorted_audit
from langcortex.audit.result_checks import audit_results
from langcortex.audit.study_leaks import audit_study
from langcortex.errors import FitError
from langcortex.progress import Progress
from langcortex.results.results import Results
from langcortex.study.run import run_study
from langcortex.study.settings import Study


def audited_run(study: Study, progress: Progress | None = None) -> tuple[Results, list[str]]:
    """Run a study, audit it and its results, and ablate the published recipe.

    Write the results with `langcortex.write_results`, which puts the findings and the ablation into the report.

    Parameters
    ----------
    study : from `langcortex.study.settings_file.read_study`
    progress : called as work is done

    Returns
    -------
    results : with their findings, leaks first; ``kept/`` and, for the published recipe, ``ablation.json`` are in the
        output folder
    notes : sentences about what could not be done

    Raises
    ------
    LangcortexError : the study cannot be read or run
    """
    results = run_study(study, progress)
    audit = sorted_audit([*audit_study(study).findings, *audit_results(results).findings])
    results = replace(results, findings=tuple(audit.as_rows()))
    if not results.protocol.is_published:
        return results, []
    try:
        write_ablation(ablate(study, seed=study.seed, progress=progress), study.output_folder)
    except FitError as error:  # runs that are long enough for the recipe may be too short for its ablation
        return results, [str(error)]
    return results, []
