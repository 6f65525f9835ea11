"""The nulls of a study: the chosen layer by itself, and all layers as one family, subject by subject."""

import dataclasses
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest

from langcortex.encoding.nested_cv import fit_layers
from langcortex.encoding.null_test import null_scores, null_test
from langcortex.encoding.prepare import Engine, PreparedCache
from langcortex.encoding.protocol import Protocol
from langcortex.encoding.scores import score
from langcortex.errors import SettingsError
from langcortex.study.accumulate import StudyScores
from langcortex.study.settings import Study

RUN = np.repeat(["a", "b", "c"], (20, 24, 22))


def _subjects(rng, arrays_design, n):
    x = {f"m/layer-0{i}": rng.standard_normal((66, 5)) for i in range(2)}
    designs = [arrays_design(x, rng.standard_normal((66, 6)) + x["m/layer-01"][:, :1], RUN) for _ in range(n)]
    return [dataclasses.replace(d, subject=f"0{i}") for i, d in enumerate(designs)]


@pytest.mark.parametrize("n_subjects", [1, 2])
def test_the_chosen_layer_and_all_layers_are_tested_over_the_mean_of_subjects(rng, arrays_design, n_subjects):
    protocol, names = Protocol(n_nulls=39, null_layers="all"), ["m/layer-00", "m/layer-01"]
    scores = StudyScores(SimpleNamespace(of_model={"m": names}), n_subjects)
    true, null = [], []
    with ThreadPoolExecutor(2) as executor:
        for design in _subjects(rng, arrays_design, n_subjects):
            encodings = fit_layers(design, names, protocol)
            layers = list(zip(names, encodings, strict=True))
            engine = Engine(plans=PreparedCache(), executor=executor)
            tested = [([name] * 3, encoding) for name, encoding in (layers[1], *layers)]
            scores.add_nulls("m", design, protocol, tested, 4, engine)
            true.append([score(e).r for e in encodings])
            null.append([null_scores(design, [s] * 3, protocol, e, 4) for s, e in layers])
    mean, nulls = np.mean(true, axis=0), np.mean(null, axis=0)
    p = (1 + (nulls >= mean[:, None] - 1e-6).sum(axis=1)) / 40
    found = scores.test_models(protocol, 4)["m"]
    np.testing.assert_allclose(found.p, p[1:])
    every = scores.test_models(protocol, 4, "all")["m"]
    np.testing.assert_allclose(every.p, p)
    assert (every.p_corrected[1] >= found.p_corrected[0] - 0.1).all()
    assert "targets and layers" in every.resampling.correction
    assert every.resampling.seed == "4, and the run's name"


def test_a_test_of_layers_is_corrected_over_them(rng, arrays_design):
    design, names = _subjects(rng, arrays_design, 1)[0], ["m/layer-00", "m/layer-01"]
    protocol = Protocol(n_nulls=39)
    encodings = fit_layers(design, names, protocol)
    found = null_test(design, [([n] * 3, e) for n, e in zip(names, encodings, strict=True)], protocol, 4)
    assert found.p.shape == (2, 6)
    assert (found.p_corrected >= found.p - 1e-12).all()


def test_a_study_says_which_null():
    told = {"null": "block", "null_block": 25, "null_penalties": "chosen", "null_layers": "all"}
    made = Study(protocol=told).to_protocol()
    assert {key: getattr(made, key) for key in told} == told
    assert Study().to_protocol().null == "shift"
    with pytest.raises(SettingsError, match=r"protocol\.null is one of shift, block, phase; not 'spin'"):
        Protocol(null="spin")
    with pytest.raises(SettingsError, match=r"protocol\.null_block is a number of rows of at least 1; not 0"):
        Protocol(null_block=0)
