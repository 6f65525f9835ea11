"""Partitions over subjects: means, intervals and p are over the unit that is named, and tables and maps say the same."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from langcortex.brain.space import Space
from langcortex.encoding.variance_partition import Partition, SubjectPartition, omega
from langcortex.results.variance_partition import (
    ABOVE,
    ALL,
    TWIN,
    PartitionScores,
    write_partitions,
)
from langcortex.stats.comparison import compare

BANDS = ("m", "rate", TWIN)
REGIONS = {"left": np.array([1, 1, 0, 0], dtype=bool), "right": np.array([0, 0, 1, 1], dtype=bool)}


def part(rng, own=0.1):
    """The model has `own` of its own on the left, nothing on the right; the twin explains half of what it does."""
    noise = rng.normal(0, 0.01, (7, 4))
    model = np.array([own + 0.1, own + 0.1, 0.1, 0.1])
    others = np.full(4, 0.1)
    joint = np.maximum(model, others) + 0.02
    alone = np.stack([model, np.full(4, 0.05), model / 2])
    without = np.stack([joint - [own, own, 0, 0], joint - 0.01, joint - 0.01])
    return Partition(BANDS, joint + noise[0], alone + noise[1:4], without + noise[4:7])


def ledger(rng, people=1, runs=3, own=0.1):
    one = PartitionScores("m", {"m": ["layer"], "rate": ["word_rate"], TWIN: ["m-untrained-0"]})
    for i in range(people):
        shares = SubjectPartition(
            f"s{i:02d}", "m", BANDS, part(rng, own), {f"run-{k}": part(rng, own) for k in range(runs)}
        )
        one.add(shares, REGIONS)
    return one


def test_means_and_intervals_are_over_subjects(rng):
    found = ledger(rng, people=8).result(np.random.default_rng(1), 2000)
    assert (found.unit, found.n_units, found.caution) == ("subjects", 8, "")
    s = found.scores
    rows = s[(s.run == ALL) & (s.region == "left") & (s.band == "m") & (s.measure == "unique")]
    row = found.get("left", "m", "unique")
    assert row.value == pytest.approx(rows.value.mean())
    assert row.low < row.value < row.high
    assert row.high - row.low == pytest.approx(2 * stats.sem(rows.value) * stats.t.isf(0.025, 7), rel=0.15)
    assert found.tested.unit == found.interval.unit == "subjects"
    assert found.tested.n == 2**8 - 1
    assert found.smallest_p == 2 / 2**8


def test_of_one_subject_the_units_are_runs_and_it_says_so(rng):
    found = ledger(rng, runs=6).result(np.random.default_rng(1), 500)
    assert (found.unit, found.n_units) == ("runs", 6)
    assert "nothing is said about other people" in found.caution
    s = found.scores
    rows = s[(s.run != ALL) & (s.region == "left") & (s.band == "m") & (s.measure == "unique")]
    assert found.get("left", "m", "unique").value == pytest.approx(rows.value.mean())
    assert "spread widened by 1.48" in str(found.tested)
    assert "spread widened by 1.48" in str(found.interval)


@pytest.mark.parametrize("unit", ["subjects", "runs"])
@pytest.mark.parametrize("n", [7, 15])
def test_p_is_that_of_a_comparison_with_nothing(rng, n, unit):
    """Held against `compare`, studentised, with zeros for the other model."""
    one = ledger(rng, *((n, 2) if unit == "subjects" else (1, n)), own=0.008)
    found = one.result(np.random.default_rng(1), 4000)
    s = found.scores
    rows = s[((s.run == ALL) == (unit == "subjects")) & (s.measure == "unique")]
    wide = rows.pivot(
        index="subject" if unit == "subjects" else "run", columns=["region", "band"], values="value"
    )
    d = wide.to_numpy()
    other = compare(d, 0 * d, np.arange(d.shape[1]), ("a", "b"), unit, np.random.default_rng(2), n_resamples=4000, studentise=True)  # fmt: skip
    mine = [found.get(region, band, "unique") for region, band in wide.columns]
    np.testing.assert_allclose([m.p for m in mine], other.p, atol=0.02 if n > 12 else 1e-12)
    np.testing.assert_allclose(
        [m.p_corrected for m in mine], other.p_corrected, atol=0.02 if n > 12 else 1e-12
    )
    np.testing.assert_allclose([m.low for m in mine], other.low, atol=0.002)


def test_what_is_there_is_found_and_what_is_not_is_not(rng):
    found = ledger(rng, people=10).result(np.random.default_rng(1), 1000)
    assert found.get("left", "m", "unique").p_corrected < 0.01
    assert found.get("right", "m", "unique").p > 0.01
    assert found.get("left", "m", ABOVE).value == pytest.approx(0.1, abs=0.01)
    assert found.get("left", "m", ABOVE).p_corrected < 0.01
    assert np.isnan(found.get("left", ALL, "omega").p)


def test_noise_is_hardly_ever_found(rng):
    """Corrected over bands and regions, 40 draws without unique variance: at most 6 with any p ≤ .05."""
    hits = 0
    for _ in range(40):
        one = PartitionScores("m")
        for i in range(8):
            noise = rng.normal(0, 0.01, (7, 4))
            whole = Partition(BANDS, noise[0], noise[1:4], np.repeat(noise[:1], 3, axis=0) + noise[4:7])
            one.add(SubjectPartition(f"s{i}", "m", BANDS, whole, {}), REGIONS)
        t = one.result(rng, 100).table
        hits += (t[t.measure == "unique"].p_corrected <= 0.05).any()
    assert hits <= 6


def test_maps_are_of_r2_averaged_over_subjects(rng):
    one = PartitionScores("m")
    parts = [part(rng) for _ in range(3)]
    for i, p in enumerate(parts):
        one.add(SubjectPartition(f"s{i}", "m", BANDS, p, {}), {})
    maps = one.maps()
    np.testing.assert_allclose(maps["unique rate"], np.mean([p.unique[1] for p in parts], axis=0))
    joint, model, rest = (np.mean([x(p) for p in parts], axis=0) for x in (
        lambda p: p.joint, lambda p: p.alone[0], lambda p: p.without[0]))  # fmt: skip
    np.testing.assert_allclose(maps["omega"], omega(joint, rest, model))


def test_a_target_or_region_without_a_value_is_nan_and_no_other(rng):
    holed = part(rng)
    joint = holed.joint.copy()
    joint[2:] = np.nan
    one = ledger(rng, people=4)
    one.add(
        SubjectPartition("s99", "m", BANDS, Partition(BANDS, joint, holed.alone, holed.without), {}),
        REGIONS,
    )
    found = one.result(np.random.default_rng(0), 200)
    row = found.get("right", "m", "unique")
    assert np.isfinite(row.value)  # the mean of those who have one
    assert np.isnan([row.low, row.p]).all()
    assert np.isfinite(found.get("left", "m", "unique").p)


def test_one_unit_has_no_interval(rng):
    found = ledger(rng, people=1, runs=1).result(np.random.default_rng(0))
    assert found.tested is None
    assert found.interval is None
    assert np.isnan(found.table.p).all()
    assert np.isfinite(found.table.value).all()


def test_the_sentence_says_what_was_tested(rng):
    found = ledger(rng, people=10).result(np.random.default_rng(1), 500)
    said = found.sentence("left")
    assert said.startswith("In left, the layer of m chosen in training explains R² = 0.2")
    assert "is unique to it, explained by none of rate, untrained" in said
    assert "corrected; 10 subjects" in said
    assert "Ω = " in said


def test_tables_and_maps_are_written(rng, tmp_path):
    found = ledger(rng, people=3).result(np.random.default_rng(0), 200)
    space = Space("columns", np.array(list("abcd")), regions=REGIONS)
    names = sorted(p.relative_to(tmp_path).as_posix() for p in write_partitions([found], space, tmp_path))
    assert names == [
        "maps/m_layer-chosen_stat-joint.tsv", "maps/m_layer-chosen_stat-omega.tsv", "maps/m_layer-chosen_stat-shared.tsv",
        "maps/m_layer-chosen_stat-unique-m.tsv", "maps/m_layer-chosen_stat-unique-rate.tsv",
        "maps/m_layer-chosen_stat-unique-untrained.tsv", "partition.tsv", "partition_scores.tsv",
    ]  # fmt: skip
    table = pd.read_csv(tmp_path / "partition.tsv", sep="\t", na_values=["n/a"])
    row = table[(table.region == "left") & (table.band == "m") & (table.measure == "unique")].iloc[0]
    assert row.value == pytest.approx(found.get("left", "m", "unique").value, rel=1e-4)
    assert set(table.unit) == {"subjects"}
    assert write_partitions([], space, tmp_path) == []


def test_four_hundred_parcels_are_tested_in_little_memory(rng):
    """2,400 columns and 10 subjects with all signs: a part of the columns at a time."""
    import tracemalloc

    regions = {f"p{i}": np.arange(800) // 2 == i for i in range(400)}
    one = PartitionScores("m")
    for i in range(10):
        r2 = rng.normal(0, 0.01, (7, 800))
        one.add(SubjectPartition(f"s{i}", "m", BANDS, Partition(BANDS, r2[0], r2[1:4], r2[4:7]), {}), regions)
    tracemalloc.start()
    found = one.result(rng, 1000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.5e8
    assert len(found.table) == 401 * 10


@pytest.mark.parametrize(("people", "runs"), [(1, 3), (2, 0)])
def test_with_many_regions_and_people_single_runs_are_not_kept(rng, people, runs):
    regions = {f"p{i}": np.arange(4) == i % 4 for i in range(100)}
    one = PartitionScores("m", n_subjects=people)
    one.add(SubjectPartition("s", "m", BANDS, part(rng), {f"run-{k}": part(rng) for k in range(3)}), regions)
    assert len({row[1] for row in one.rows}) == 1 + runs
