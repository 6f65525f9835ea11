"""Tests over subjects: threshold-free cluster enhancement, and a linear mixed model of scores."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse

from langcortex.brain.space import Space
from langcortex.errors import FitError
from langcortex.stats.null_counts import Significance
from langcortex.stats.resampling import Resampling, describe_seed
from langcortex.stats.sign_flips import check_subjects, t_of_flips


def tfce(
    scores: np.ndarray,
    space: Space,
    rng: np.random.Generator,
    n_flips: int = 10_000,
    tail: str = "greater",
    adjacency: sparse.spmatrix | sparse.sparray | None = None,
) -> Significance:
    """Test over subjects with threshold-free cluster enhancement, where neighbouring targets support each other.

    Volumes go through nilearn, surfaces through MNE.

    Parameters
    ----------
    scores : (n_subjects, n_targets); every target defined in every subject
    space : of the targets
    rng : the source of randomness
    n_flips : random sign patterns
    tail : "greater" or "two"
    adjacency : (n_targets, n_targets) which vertices are neighbours; None takes fsaverage5's

    Returns
    -------
    Significance: `value` is t; `p_corrected` is of the enhanced values, corrected over targets by the largest;
    `p` and `q` are NaN, because neither library returns uncorrected p of enhanced values

    Raises
    ------
    FitError : neighbours are not known, targets are undefined, or MNE is not installed

    References
    ----------
    Smith & Nichols 2009, doi:10.1016/j.neuroimage.2008.03.061; Gramfort et al. 2013, doi:10.3389/fnins.2013.00267 (MNE)
    """
    scores = np.asarray(scores, dtype=np.float64)
    check_subjects(len(scores), tail)
    if not np.isfinite(scores).all():
        missing = int((~np.isfinite(scores).all(axis=0)).sum())
        raise FitError(
            f"{missing} of {scores.shape[1]} targets are undefined in some subject; clusters cannot be grown over gaps. "
            "Use a mask of targets that all subjects have."
        )
    seed, n_patterns = describe_seed(rng), n_flips
    if space.kind == "volume":
        p_corrected = _tfce_volume(scores, space, rng, n_flips, tail)
    elif space.kind == "surface" or adjacency is not None:
        p_corrected, n_patterns = _tfce_surface(scores, space, rng, n_flips, tail, adjacency)
    else:
        raise FitError(
            f"A recording with {space.kind} has no neighbours to form clusters; use sign_flip, or give adjacency."
        )
    t = t_of_flips(np.ones((1, len(scores))), scores, tail)[0]
    record = Resampling(
        "subjects", "random signs, TFCE", n_patterns, seed, "largest enhanced value over targets"
    )
    undefined = np.full(len(t), np.nan)
    return Significance(t, undefined, p_corrected, undefined.copy(), record)


def _tfce_volume(
    scores: np.ndarray, space: Space, rng: np.random.Generator, n_flips: int, tail: str
) -> np.ndarray:
    import nibabel
    from nilearn.maskers import NiftiMasker
    from nilearn.mass_univariate import permuted_ols

    if space.mask is None:
        raise FitError("This volume has no mask, so its neighbours are not known.")
    mask = nibabel.Nifti1Image(space.mask.astype(np.uint8), space.affine)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # announcements of nilearn's own defaults
        outputs = permuted_ols(
            np.ones((len(scores), 1)),
            scores,
            model_intercept=False,
            n_perm=n_flips,
            two_sided_test=tail == "two",
            random_state=int(rng.integers(2**31)),
            n_jobs=1,
            verbose=0,
            masker=NiftiMasker(mask).fit(),
            tfce=True,
            output_type="dict",
        )
    p: np.ndarray = 10.0 ** -np.asarray(outputs["logp_max_tfce"], dtype=np.float64)[0]
    return p


def _tfce_surface(
    scores: np.ndarray,
    space: Space,
    rng: np.random.Generator,
    n_flips: int,
    tail: str,
    adjacency: sparse.spmatrix | sparse.sparray | None,
) -> tuple[np.ndarray, int]:
    try:
        from mne.stats import permutation_cluster_1samp_test
    except ImportError as error:
        raise FitError(
            "TFCE on surfaces needs MNE, which is not installed. Install it with: pip install mne, or use sign_flip."
        ) from error
    neighbours = surface_adjacency(space) if adjacency is None else adjacency
    if neighbours.shape != (scores.shape[1], scores.shape[1]):
        raise FitError(
            f"The adjacency is of {neighbours.shape[0]} vertices, but there are {scores.shape[1]} targets."
        )
    seed = int(rng.integers(2**31))
    keyword = "rng" if "rng" in inspect.signature(permutation_cluster_1samp_test).parameters else "seed"
    outputs = permutation_cluster_1samp_test(
        scores,
        threshold={"start": 0.0, "step": 0.2},
        n_permutations=n_flips + 1,  # MNE counts the unchanged data among them
        tail=0 if tail == "two" else 1,
        adjacency=sparse.coo_array(neighbours),
        **{keyword: seed},
        out_type="indices",
        verbose=False,
    )
    # for few subjects MNE tries every pattern once, the unchanged one included
    return np.asarray(outputs[2], dtype=np.float64), len(outputs[3]) - 1


def surface_adjacency(space: Space) -> sparse.coo_array:
    """Return the adjacency of the vertices of fsaverage5, from the meshes in nilearn.

    Raises
    ------
    FitError : the hemispheres are not fsaverage5's (10,242 vertices each)
    """
    from nilearn.datasets import load_fsaverage

    mesh = load_fsaverage("fsaverage5")["white_matter"].parts
    triangles = [np.asarray(mesh[side].faces) for side in ("left", "right")]
    sizes = tuple(int(mesh[side].n_vertices) for side in ("left", "right"))
    if space.hemispheres != sizes:
        raise FitError(
            f"The hemispheres have {space.hemispheres} vertices; only fsaverage5's mesh ({sizes}) is known. Give adjacency."
        )
    blocks = []
    for faces, size in zip(triangles, sizes, strict=True):
        edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
        rows, columns = np.concatenate([edges, edges[:, ::-1]]).T
        adjacency = sparse.coo_array((np.ones(len(rows)), (rows, columns)), shape=(size, size)).tocsr()
        adjacency.data[:] = 1.0
        blocks.append(adjacency)
    return sparse.coo_array(sparse.block_diag(blocks))


@dataclass(frozen=True, eq=False)
class MixedModel:
    """A linear mixed model of scores: score ~ model + (1 | subject) + (1 | run).

    Attributes
    ----------
    models : (n_models,) each is compared with the first
    effect, error, low, high : (n_models − 1,) difference from the first model, its standard error, 95 % interval
    p : (n_models − 1,) two-sided, Wald with t of n_subjects − 1 degrees of freedom
    variances : standard deviations of "subject", "run", "subject × model" (if asked for) and "residual"
    n_subjects, n_runs, n_scores : how many
    formula : the model that was fitted
    warnings : sentences for the reader
    """

    models: tuple[str, ...]
    effect: np.ndarray
    error: np.ndarray
    low: np.ndarray
    high: np.ndarray
    p: np.ndarray
    variances: Mapping[str, float]
    n_subjects: int
    n_runs: int
    n_scores: int
    formula: str
    warnings: tuple[str, ...] = ()


def fit_mixed_model(table: pd.DataFrame, models: Sequence[str] = (), slopes: bool = True) -> MixedModel:
    """Fit a linear mixed model to scores over subjects and runs, by restricted maximum likelihood (statsmodels).

    Parameters
    ----------
    table : columns subject, run, model, score; one row per subject, run and model; NaN scores are left out
    models : which to compare with the first; empty takes all in order of appearance
    slopes : let the difference between models vary over subjects, (1 | subject:model). Without it, the runs of few subjects
        count as if they were as many people, and noise is significant too often

    Raises
    ------
    FitError : statsmodels is not installed, a column is missing, scores are duplicated, or there are too few

    References
    ----------
    Barr et al. 2013, doi:10.1016/j.jml.2012.11.001 (why differences must be allowed to vary); Seabold & Perktold 2010,
    doi:10.25080/Majora-92bf1922-011 (statsmodels)
    """
    rows = _score_rows(table, models)
    names = tuple(models) or tuple(dict.fromkeys(rows["model"]))
    n_subjects, n_runs = rows["subject"].nunique(), rows["run"].nunique()
    if len(names) < 2 or n_subjects < 3 or n_runs < 2:
        raise FitError(
            f"There are {len(names)} models, {n_subjects} subjects and {n_runs} runs; a mixed model needs at least 2, 3 and 2. "
            "With fewer subjects, compare models over runs."
        )
    fit, notes = _fit_mixed(rows, names, slopes)
    from scipy import stats

    effect = np.asarray(fit.fe_params[1:], dtype=np.float64)
    error = np.asarray(fit.bse_fe[1:], dtype=np.float64)
    if not fit.converged:
        effect, error = np.full_like(effect, np.nan), np.full_like(error, np.nan)
    reach = stats.t.isf(0.025, n_subjects - 1) * error
    spread = dict(zip(fit.model.exog_vc.names, np.sqrt(np.maximum(fit.vcomp, 0.0)).tolist(), strict=True))
    spread["residual"] = float(np.sqrt(fit.scale))
    formula = "score ~ model + (1 | subject) + (1 | run)" + (" + (1 | subject:model)" if slopes else "")
    return MixedModel(
        names, effect, error, effect - reach, effect + reach, 2 * stats.t.sf(np.abs(effect / error), n_subjects - 1),
        spread, n_subjects, n_runs, len(rows), formula, tuple(notes),
    )  # fmt: skip


def _score_rows(table: pd.DataFrame, models: Sequence[str]) -> pd.DataFrame:
    missing = [c for c in ("subject", "run", "model", "score") if c not in table]
    if missing:
        raise FitError(
            f"The table of scores has no column '{missing[0]}'. It needs subject, run, model and score."
        )
    unknown = [m for m in models if m not in set(table["model"])]
    if unknown:
        raise FitError(f"No score is of a model called '{unknown[0]}'.")
    rows = table[table["model"].isin(list(models))] if models else table
    rows = rows[np.isfinite(rows["score"].to_numpy(dtype=np.float64))]
    duplicated = rows.duplicated(["subject", "run", "model"])
    if duplicated.any():
        score = rows[duplicated].iloc[0]
        raise FitError(
            f"There are two scores of '{score.model}' for subject '{score.subject}', run '{score.run}'. Give one region and layer."
        )
    return rows


def _fit_mixed(rows: pd.DataFrame, names: Sequence[str], slopes: bool) -> tuple[Any, list[str]]:
    try:
        from statsmodels.regression.mixed_linear_model import MixedLM, VCSpec
    except ImportError as error:
        raise FitError(
            "A mixed model needs statsmodels, which is not installed. Install it with: pip install 'langcortex[stats]'."
        ) from error
    score = rows["score"].to_numpy(dtype=np.float64)
    unit = float(score.std()) or 1.0  # the optimiser's tolerances suit numbers around 1
    model = rows["model"].to_numpy()
    fixed = np.column_stack([np.ones(len(rows)), *((model == name).astype(np.float64) for name in names[1:])])
    factors = {"subject": rows["subject"].astype(str), "run": rows["run"].astype(str)}
    if slopes:
        factors["subject × model"] = factors["subject"] + "\n" + rows["model"].astype(str)
    indicators = [(np.asarray(f)[:, None] == np.unique(f)[None]).astype(np.float64) for f in factors.values()]
    levels = [[str(v) for v in np.unique(f)] for f in factors.values()]
    spec = VCSpec(list(factors), [[names_] for names_ in levels], [[z] for z in indicators])
    with warnings.catch_warnings(record=True) as records:
        warnings.simplefilter("always")
        # crossed effects are variance components of one group that holds every row
        fit = MixedLM(score / unit, fixed, np.ones(len(rows)), exog_vc=spec).fit(reml=True)
    notes = [] if fit.converged else ["It did not converge, so it has no numbers."]
    if any("boundary" in str(w.message) for w in records):
        notes.append("A variance of the mixed model is estimated as 0.")
    return _RescaledFit(fit, unit), notes


class _RescaledFit:
    """A fit in the unit of the scores."""

    def __init__(self, fit: Any, unit: float) -> None:
        self.model, self.converged = fit.model, bool(fit.converged)
        self.fe_params, self.bse_fe = fit.fe_params * unit, fit.bse_fe * unit
        self.vcomp, self.scale = fit.vcomp * unit**2, fit.scale * unit**2


@dataclass(frozen=True, eq=False)
class GroupTest:
    """Test over subjects of whether the score of the layer chosen in training differs from 0.

    Attributes
    ----------
    name : of the model, or "a − b" for the difference of two models
    tail : "greater" for a model, "two" for a difference
    n_subjects : how many
    region_names : (n_regions,) "brain" first
    regions : mean scores of regions, corrected over regions
    targets : scores of every target, corrected over targets; None where subjects share no space
    clusters : the same with threshold-free cluster enhancement; None where it was not requested
    """

    name: str
    tail: str
    n_subjects: int
    region_names: tuple[str, ...]
    regions: Significance
    targets: Significance | None = None
    clusters: Significance | None = None
