"""Curves of noise beside a study: read back as they were written, and never used for another study."""

import json

import numpy as np
import pytest

from langcortex.encoding.protocol import Protocol
from langcortex.errors import StoreError
from langcortex.results.null_curves import FILE, null_curves_as_json, read_null_curves

LAYERS = {"m": np.arange(7)}


def _write(folder, curves, protocol=None, region="brain", **numbers):
    told = {
        "kind": "phase",
        "seed": 4,
        **numbers,
        **null_curves_as_json(protocol or Protocol(), region, LAYERS, curves),
    }
    (folder / FILE).write_text(json.dumps(told))


def test_curves_are_read_back_with_how_they_were_made(tmp_path, rng):
    curves = rng.standard_normal((20, 7))
    _write(tmp_path, {"m": curves})
    found, why = read_null_curves(tmp_path, Protocol(), "brain")
    assert why == ""
    np.testing.assert_allclose(found["m"].curves, curves, atol=1e-6)
    assert found["m"].layers == list(range(7))
    record = found["m"].resampled
    assert (record.unit, record.n, record.seed) == ("recordings without a story (phase)", 20, "4")


def test_no_file_is_no_curve_and_no_complaint(tmp_path):
    assert read_null_curves(tmp_path, Protocol(), "brain") == ({}, "")


def test_other_protocols_and_regions_are_not_used_but_another_number_of_nulls_is(tmp_path, rng):
    _write(tmp_path, {"m": rng.standard_normal((20, 7))})
    for protocol, region in ((Protocol(pca=3), "brain"), (Protocol(), "IFG")):
        found, why = read_null_curves(tmp_path, protocol, region)
        assert found == {}
        assert "of another protocol or region" in why
    assert read_null_curves(tmp_path, Protocol(n_nulls=7), "brain")[0]


def test_too_few_draws_say_so_and_undefined_ones_do_not_count(tmp_path, rng):
    curves = rng.standard_normal((20, 7))
    curves[:2, 0] = np.nan
    _write(tmp_path, {"m": curves})
    assert "has 18 draws" in read_null_curves(tmp_path, Protocol(), "brain")[1]


@pytest.mark.parametrize("content", ["{", '{"curves": {"m": {"layers": 3}}}', '{"curves": 5}'])
def test_a_damaged_file_is_a_sentence(tmp_path, content):
    (tmp_path / FILE).write_text(content)
    with pytest.raises(StoreError, match=r"null_calibration\.json cannot be read"):
        read_null_curves(tmp_path, Protocol(), "brain")
