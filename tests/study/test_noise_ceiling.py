"""What subjects share: the very responses that are scored, never with oneself in the mean, and planted ceilings found."""

import numpy as np
import pytest

from langcortex.brain.space import Space
from langcortex.encoding.folded_design import scored_responses
from langcortex.encoding.nested_cv import fit
from langcortex.encoding.protocol import Protocol
from langcortex.study.noise_ceiling import SharedResponses, repeat_ceiling

RUN = np.repeat(["run-1", "run-2", "run-3"], 30)


@pytest.fixture
def design(arrays_design, rng):
    """Six targets at two delays, a confound in both, one target without data."""

    def make(signal=None, share=0.0, subject="01", n_targets=6):
        own = np.random.default_rng([7, *subject.encode()])
        y = own.standard_normal((2, 90, n_targets))
        if signal is not None:
            y = np.sqrt(share) * signal + np.sqrt(1 - share) * y
        x = {
            "model/layer-01": np.random.default_rng(5).standard_normal((90, 4)),
            "duration": np.random.default_rng(6).standard_normal((90, 1)),
        }
        y = y + x["duration"]
        y[:, :, n_targets - 1] = np.nan
        made = arrays_design(x, {4.0: y[0].astype(np.float32), 6.0: y[1].astype(np.float32)}, RUN)
        return made.__class__(**{**made.__dict__, "subject": subject})

    return make


PROTOCOL = Protocol(confounds=("duration",), penalties=(1.0, 100.0), n_nulls=0)


def test_what_is_held_out_is_what_a_fit_is_scored_on(design):
    """To the last digits of float32, whatever the delay of each fold."""
    delays = np.array([[4.0], [6.0], [4.0]])
    one = design()
    encoding = fit(one, "model/layer-01", PROTOCOL, delays, keep_predictions=True)
    held = scored_responses(one, PROTOCOL, delays)
    centre = lambda y: y - y.mean(axis=0)  # noqa: E731  # where the zero lies is no matter of a correlation
    for piece in encoding.segments:
        rows = encoding.row_segment == piece
        np.testing.assert_allclose(
            centre(held.values.T[held.segment == piece][:, :5]),
            centre(encoding.observed[rows][:, :5]),
            atol=1e-5,
        )
    assert np.isnan(held.values[5]).all()
    assert held.ids.tolist() == one.ids.tolist()


def test_test_runs_alone_are_held_out(design):
    protocol = Protocol(test_runs=("run-2",), confounds=(), penalties=(1.0, 100.0), n_nulls=0)
    held = scored_responses(design(), protocol, np.array([[4.0]]))
    assert set(held.segment.tolist()) == {"run-2"}
    assert held.values.shape == (6, 30)


def _listeners(design, n=6, share=0.3, **options):
    signal = np.random.default_rng(1).standard_normal((90, 6))
    who = SharedResponses()
    for i in range(n):
        one = design(signal, share, f"{i:02d}", **options)
        who.add(one.subject, scored_responses(one, PROTOCOL, np.full((3, 1), 4.0)), one.space)
    return who


def test_a_planted_share_is_found_and_silence_is_not(design):
    """The signal of one draw varies about its variance, so the truth is known to a few hundredths."""
    shared, reason = _listeners(design).ceiling({"first": np.arange(6) < 2}, np.random.default_rng(0))
    assert reason == ""
    assert shared.perfect_model.by_region["brain"][0] == pytest.approx(np.sqrt(0.3), abs=0.08)
    assert shared.perfect_model.low[:5].min() > 0
    assert np.isnan(shared.perfect_model.value[5])
    assert set(shared.perfect_model.by_region) == {"brain", "first"}
    assert len(shared.subjects) == 6
    silent, _ = _listeners(design, share=0.0).ceiling({}, np.random.default_rng(0))
    assert silent.perfect_model.by_region["brain"][1] <= 0


def test_the_order_of_subjects_and_where_they_wait_change_nothing(design, monkeypatch):
    one, _ = _listeners(design).ceiling({}, np.random.default_rng(0))
    monkeypatch.setattr("langcortex.study.noise_ceiling.IN_MEMORY", 0)
    on_disk = _listeners(design)
    assert all(isinstance(v, np.memmap) for group in on_disk.groups.values() for _, v in group)
    other, _ = on_disk.ceiling({}, np.random.default_rng(0))
    np.testing.assert_array_equal(one.perfect_model.value, other.perfect_model.value)
    np.testing.assert_array_equal(one.other_subjects.low, other.other_subjects.low)


def test_those_with_other_rows_or_targets_are_left_out_and_too_few_say_so(design, arrays_design):
    who = _listeners(design, n=3)
    odd = design(subject="odd")
    short = scored_responses(odd, PROTOCOL, np.full((3, 1), 4.0))
    short = short.__class__(short.values[:, 1:], short.segment[1:], short.ids[1:], short.scans[1:])
    who.add("odd", short, odd.space)
    who.add(
        "moved",
        scored_responses(odd, PROTOCOL, np.full((3, 1), 4.0)),
        Space("columns", np.array(list("abcdef"))),
    )
    shared, _ = who.ceiling({}, np.random.default_rng(0))
    assert shared.subjects == ("00", "01", "02")
    few = SharedResponses()
    assert few.ceiling({}, np.random.default_rng(0))[1].endswith(
        "0 subjects were scored, and it needs at least 3."
    )
    alone = _listeners(design, n=2)
    alone.add("odd", short, odd.space)
    assert "only 2 of 3 have the same rows" in alone.ceiling({}, np.random.default_rng(0))[1]


def test_the_average_gets_a_ceiling_of_its_own(design):
    who = _listeners(design)
    assert who.ceiling({}, np.random.default_rng(0))[0].average_subject is None
    average = who.ceiling({}, np.random.default_rng(0), average=True)[0]
    assert average.average_subject.by_region["brain"][0] > average.perfect_model.by_region["brain"][0]


# repeats


def _repeated(arrays_design, share, n_repeats=8, n_scans=200, n_targets=20):
    rng = np.random.default_rng([3, int(100 * share)])
    signal = np.sqrt(share) * rng.standard_normal((n_scans, n_targets))
    repeats = 5.0 + 3.0 * (signal + np.sqrt(1 - share) * rng.standard_normal((n_repeats, n_scans, n_targets)))
    mean = repeats.mean(axis=0)
    y = (mean - mean.mean(axis=0)) / mean.std(axis=0)
    train = rng.standard_normal((n_scans, n_targets))
    run = np.repeat(["train", "test"], n_scans)
    whole = np.concatenate([train, y]).astype(np.float32)
    design = arrays_design({"duration": rng.standard_normal((2 * n_scans, 1))}, whole, run)
    protocol = Protocol(test_runs=("test",), confounds=("duration",), penalties=(1.0, 10.0), n_nulls=0)
    return design, scored_responses(design, protocol), repeats


def test_repeats_give_the_ceiling_that_was_planted(arrays_design):
    """CC_max of a mean of n repeats: √(n s / (1 + (n − 1) s)) for a share s of one repeat; stored units do not matter."""
    design, held, repeats = _repeated(arrays_design, 0.2)
    rng = np.random.default_rng(0)
    found, why = repeat_ceiling(design, held, "test", repeats, {"m": np.full(20, 0.1)}, rng)
    assert why == ""
    truth = np.sqrt(8 * 0.2 / (1 + 7 * 0.2))
    value, low, high = found.ceiling.by_region["brain"]
    assert low <= truth <= high
    assert value == pytest.approx(truth, abs=0.04)
    assert found.n_repeats == 8
    silent, held, repeats = _repeated(arrays_design, 0.0)
    assert repeat_ceiling(silent, held, "test", repeats, {}, rng)[0].ceiling.by_region["brain"][1] <= 0


def test_repeats_of_another_recording_are_no_ceiling(arrays_design, rng):
    design, held, repeats = _repeated(arrays_design, 0.2)
    assert "was cleaned differently" in repeat_ceiling(design, held, "test", repeats[:, ::-1], {}, rng)[1]
    assert "not scored as a whole" in repeat_ceiling(design, held, "test", repeats[:, :150], {}, rng)[1]
    assert "not scored as a whole" in repeat_ceiling(design, held, "train", repeats, {}, rng)[1]
