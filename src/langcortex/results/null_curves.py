"""Layer curves of recordings without a story, written beside a study's results and read again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from langcortex.encoding.protocol import Protocol
from langcortex.errors import StoreError
from langcortex.stats.resampling import Resampling

FILE = "null_calibration.json"


def null_curves_as_json(
    protocol: Protocol, region: str, layers: Mapping[str, np.ndarray], curves: Mapping[str, np.ndarray]
) -> dict[str, Any]:
    """Return null curves, with their protocol and region, as plain values for ``null_calibration.json``.

    Parameters
    ----------
    protocol, region : of the curves
    layers : model → (n_layers,)
    curves : model → (n_draws, n_layers) mean r
    """
    by_model = {m: {"layers": layers[m].tolist(), "r": np.round(c, 6).tolist()} for m, c in curves.items()}
    return {"protocol": _choices_as_json(protocol), "region": region, "curves": by_model}


@dataclass(frozen=True, eq=False)
class NullCurves:
    """The layer curves of one model on recordings without a story.

    Attributes
    ----------
    layers : (n_layers,) numbers
    curves : (n_draws, n_layers) mean r
    resampled : how they were made
    """

    layers: list[int]
    curves: np.ndarray
    resampled: Resampling


def read_null_curves(folder: Path, protocol: Protocol, region: str) -> tuple[dict[str, NullCurves], str]:
    """Read null curves, where they are of the same protocol and region.

    Returns
    -------
    curves : model → its curves; empty where there are none
    reason : a sentence where the curves on disk are not used

    Raises
    ------
    StoreError : the file is damaged
    """
    path = folder / FILE
    if not path.is_file():
        return {}, ""
    try:
        calibration = json.loads(path.read_text(encoding="utf-8"))
        curves = {
            str(model): _read_curves(table, calibration)
            for model, table in calibration.get("curves", {}).items()
        }
        matches = (
            calibration.get("protocol") == _choices_as_json(protocol) and calibration.get("region") == region
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        raise StoreError(
            f"{path} cannot be read ({error}). Delete it, or run langcortex audit --null again."
        ) from error
    if not matches:
        return (
            {},
            f"{FILE} is of another protocol or region and was not used; run langcortex audit --null again.",
        )
    n_draws = min((len(null.curves) for null in curves.values()), default=19)
    if n_draws < 19:
        return {}, f"{FILE} has {n_draws} draws of noise; a curve is tested against 19 or more."
    return curves, ""


def _read_curves(table: Mapping[str, Any], calibration: Mapping[str, Any]) -> NullCurves:
    r = np.array(table["r"], dtype=np.float64)
    r = r[np.isfinite(r).all(axis=1)]
    what = f"recordings without a story ({calibration.get('kind', 'of some kind')})"
    record = Resampling(what, "the same study on each", len(r), str(calibration.get("seed", "not known")))
    return NullCurves([int(k) for k in table["layers"]], r, record)


def _choices_as_json(protocol: Protocol) -> dict[str, Any]:
    """Return the choices that scores and nulls depend on, as JSON returns them."""
    choices: dict[str, Any] = json.loads(json.dumps(protocol.deciding(nulls=True, name=True)))
    return choices
