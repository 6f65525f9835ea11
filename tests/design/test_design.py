"""Where story and scanner meet: rows by name, delays by the clock, nothing across a run, and nothing by position."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nilearn.glm.first_level import compute_regressor

from langcortex.brain.recording import Recording
from langcortex.brain.space import Space
from langcortex.design.design import HRF, Delays, Design, align_scans, align_sentences
from langcortex.encoding.protocol import Protocol, outer_folds
from langcortex.errors import AlignmentError
from langcortex.features.controls.registry import control
from langcortex.features.table import Features
from langcortex.stimulus.story import make_story

SPACE = Space("columns", np.array(["a", "b"]))


def _recording(run, n=14, tr=2.0, start=0.0, values=None, space=SPACE):
    if values is None:
        values = np.random.default_rng(sum(map(ord, run))).standard_normal((n, space.n_targets))
    onset = start + tr * np.arange(len(values))
    return Recording(np.asarray(values, dtype=np.float32), onset, tr, run, "01", space)


@pytest.fixture
def recordings(story):
    return [_recording(run) for run in story.runs]


@pytest.fixture
def words(story, rng):
    values = rng.standard_normal((len(story), 3))
    return Features("llama/layer-16", story.ids, story.onset, story.duration, story.run, values)


def _shuffled(table, rng):
    order = rng.permutation(len(table.ids))
    return replace(
        table, **{k: getattr(table, k)[order] for k in ("ids", "onset", "duration", "run", "values")}
    )


def _without(table, row):
    keep = np.arange(len(table.ids)) != row
    return replace(
        table, **{k: getattr(table, k)[keep] for k in ("ids", "onset", "duration", "run", "values")}
    )


def _sentence_table(story, rng):
    s = story.sentences
    return Features("f", s.ids, s.onset, s.duration, s.run, rng.standard_normal((len(s), 2)))


# Sentences


def test_a_sentence_row_is_its_features_and_the_mean_response_over_its_delayed_window(
    story, recordings, words
):
    design = align_sentences(story, {"f": words}, recordings, delays=(4.0, 6.0))
    assert design.ids.tolist() == story.sentences.ids.tolist()
    assert design.delays == (4.0, 6.0)
    by_run = {r.run: r for r in recordings}
    for i, name in enumerate(design.ids):
        spoken = np.flatnonzero(story.sentence == name)
        np.testing.assert_allclose(design.X["f"][i], words.values[spoken].mean(axis=0))
        begin, end = story.onset[spoken[0]], story.onset[spoken[-1]] + story.duration[spoken[-1]]
        scans = by_run[design.run[i]]
        for delay in (4.0, 6.0):
            moments = delay + begin + (end - begin) * (np.arange(5000) + 0.5) / 5000
            expected = scans.values[np.floor(moments / 2.0).astype(int)].mean(axis=0)
            np.testing.assert_allclose(design.Y[delay][i], expected, atol=2e-3)


@pytest.mark.parametrize("kind", ["words", "sentences"])
def test_the_order_of_feature_rows_changes_nothing_over_sentences(story, recordings, words, rng, kind):
    table = words if kind == "words" else _sentence_table(story, rng)
    for combine in ("mean", "sum", "last"):
        merged = replace(table, combine=combine)
        a = align_sentences(story, {"f": merged}, recordings, delays=(4.0,))
        b = align_sentences(story, {"f": _shuffled(merged, rng)}, recordings, delays=(4.0,))
        np.testing.assert_allclose(a.X["f"], b.X["f"], atol=1e-12)


@pytest.mark.parametrize("response", [Delays((2.0, 4.0)), HRF()])
@pytest.mark.parametrize("kind", ["words", "sentences"])
@pytest.mark.parametrize("combine", ["mean", "sum", "last"])
def test_the_order_of_feature_rows_changes_nothing_over_scans(
    story, recordings, words, rng, response, kind, combine
):
    table = replace(words if kind == "words" else _sentence_table(story, rng), combine=combine)
    a = align_scans(story, {"f": table}, recordings, response)
    b = align_scans(story, {"f": _shuffled(table, rng)}, recordings, response)
    np.testing.assert_allclose(a.X["f"], b.X["f"], atol=1e-12)


GAP = (
    "'llama/layer-16' has no row for 1 of {n} units, first '{first}'. Extract features for every unit, or leave these "
    "out of the recording too: rows are matched by id, never by position."
)


@pytest.mark.parametrize("response", [None, Delays((2.0, 4.0)), HRF()])
def test_a_missing_row_is_an_error_that_names_it(story, recordings, words, response):
    short = {"f": _without(words, 7)}
    design = (
        align_sentences(story, short, recordings)
        if response is None
        else align_scans(story, short, recordings, response)
    )
    with pytest.raises(AlignmentError) as message:
        design.X["f"]
    assert str(message.value) == GAP.format(n=len(story), first=story.ids[7])


@pytest.mark.parametrize("response", [None, Delays((2.0, 4.0)), HRF()])
def test_a_missing_sentence_row_is_an_error_that_names_it(story, recordings, rng, response):
    short = {"f": replace(_without(_sentence_table(story, rng), 4), name="llama/layer-16")}
    design = (
        align_sentences(story, short, recordings)
        if response is None
        else align_scans(story, short, recordings, response)
    )
    with pytest.raises(
        AlignmentError, match=f"'llama/layer-16' has no row for .* first '{story.sentences.ids[4]}'"
    ):
        design.X["f"]


@pytest.mark.parametrize("response", [None, Delays((2.0, 4.0)), HRF()])
def test_the_order_of_recordings_changes_nothing(story, recordings, words, response):
    def make(order):
        if response is None:
            return align_sentences(story, {"f": words}, order)
        return align_scans(story, {"f": words}, order, response)

    a, b = make(recordings), make(recordings[::-1])
    np.testing.assert_array_equal(a.ids, b.ids)
    np.testing.assert_array_equal(a.X["f"], b.X["f"])
    for delay in a.delays:
        np.testing.assert_array_equal(a.Y[delay], b.Y[delay])


@pytest.mark.parametrize("response", [None, Delays((2.0, 4.0)), HRF()])
def test_a_subject_who_missed_a_run_has_no_rows_of_it(story, recordings, words, response):
    def make(present):
        if response is None:
            return align_sentences(story, {"f": words}, present)
        return align_scans(story, {"f": words}, present, response)

    full, part = make(recordings), make([recordings[0], recordings[2]])
    keep = full.run != "run-2"
    np.testing.assert_array_equal(part.ids, full.ids[keep])
    np.testing.assert_allclose(part.X["f"], full.X["f"][keep])
    np.testing.assert_array_equal(part.Y[part.delays[0]], full.Y[full.delays[0]][keep])


def test_sentences_whose_delayed_window_is_not_scanned_are_left_out_and_listed(story, words):
    last = story.sentences.onset[2]  # of run-1: about 4 to 5 s
    recordings = [_recording("run-1", n=int((last + 8.0) // 2)), *(_recording(r) for r in ("run-2", "run-3"))]
    design = align_sentences(story, {"f": words}, recordings, delays=(4.0, 8.0))
    assert dict(design.left_out) == {"run-1/sentence-002": "its delayed window lies outside the scans"}
    assert design.ids.tolist() == [i for i in story.sentences.ids if i != "run-1/sentence-002"]
    assert all(len(design.Y[d]) == len(design.ids) == len(design.X["f"]) for d in (4.0, 8.0))
    gone = [_recording("run-1", start=500.0), *recordings[1:]]
    with pytest.raises(
        AlignmentError, match="Run 'run-1' of subject '01': no sentence has scans at a delay of up to 8 s"
    ):
        align_sentences(story, {"f": words}, gone, delays=(4.0, 8.0))


def test_a_sentence_needs_scans_for_half_of_its_window(words, story, rng):
    """Windows count when at least half of them is scanned."""
    for start, covered in (
        (5.0, True),
        (5.4, False),
    ):  # sentence 0 lasts from 0 to 2.35 s, moved by 4 s: 4 to 6.35
        recordings = [_recording("run-1", start=start), *(_recording(r) for r in ("run-2", "run-3"))]
        design = align_sentences(story, {"f": words}, recordings, delays=(4.0,))
        assert ("run-1/sentence-000" in design.ids) == covered


def test_candidate_delays_follow_from_the_tr(story, words):
    design = align_sentences(story, {"f": words}, [_recording(r, n=20, tr=1.5) for r in story.runs])
    assert design.delays == (4.5, 6.0, 7.5, 9.0)
    with pytest.raises(AlignmentError, match=r"no whole multiple of the TR \(12 s\)"):
        align_sentences(story, {"f": words}, [_recording(r, tr=12.0) for r in story.runs])


def test_rows_record_the_scans_they_depend_on(story, recordings, words):
    design = align_sentences(story, {"f": words}, recordings, delays=(4.0, 8.0))
    for i, name in enumerate(design.ids):
        s = story.sentences
        k = s.ids.tolist().index(name)
        begin, end = s.onset[k] + 4.0, s.onset[k] + s.duration[k] + 4.0
        assert design.scans[i].tolist() == [int(begin // 2), int(np.ceil(end / 2)) - 1]


# Scans


def _by_hand(story, table, recording, delays):
    """Delays written out with loops: bin words by their midpoint, centre, and look back."""
    n, tr = len(recording.onset), recording.tr
    binned, filled = np.zeros((n, table.values.shape[1])), np.zeros(n, dtype=bool)
    for scan in range(n):
        a = recording.onset[scan]
        middle = table.onset + table.duration / 2
        here = np.flatnonzero((table.run == recording.run) & (middle >= a) & (middle < a + tr))
        if len(here):
            filled[scan] = True
            values = table.values[here]
            binned[scan] = {"mean": values.mean(axis=0), "sum": values.sum(axis=0), "last": values[-1]}[
                table.combine
            ]
    if table.combine != "sum":
        binned[filled] -= binned[filled].mean(axis=0)
    out = np.zeros((n, len(delays) * binned.shape[1]))
    for scan in range(n):
        for k, delay in enumerate(delays):
            back = scan - round(delay / tr)
            if back >= 0:
                out[scan, k * binned.shape[1] : (k + 1) * binned.shape[1]] = binned[back]
    return out


@pytest.mark.parametrize("combine", ["mean", "sum", "last"])
@pytest.mark.parametrize("start", [0.0, -6.0, 1.0])
def test_delays_equal_a_reference_made_by_hand(story, words, combine, start):
    table = replace(words, combine=combine)
    delays = (0.0, 2.0, 6.0)
    recordings = [_recording(run, start=start) for run in story.runs]
    design = align_scans(story, {"f": table}, recordings, Delays(delays))
    expected_x, expected_y, ids = [], [], []
    for recording in recordings:
        in_run = story.run == recording.run
        first, last = story.onset[in_run][0], (story.onset + story.duration)[in_run].max()
        rows = [i for i, t in enumerate(recording.onset) if t + 2.0 > first and t < last + 6.0]
        expected_x.append(_by_hand(story, table, recording, delays)[rows])
        expected_y.append(recording.values[rows])
        ids += [f"{recording.run}/scan-{i:04d}" for i in rows]
    assert design.ids.tolist() == ids
    np.testing.assert_allclose(design.X["f"], np.concatenate(expected_x), atol=1e-12)
    np.testing.assert_array_equal(design.Y[0.0], np.concatenate(expected_y))


def test_no_delay_crosses_a_run(story, recordings, words):
    """What is said in run 1 appears in no row of run 2."""
    loud = replace(words, values=np.where((story.run == "run-1")[:, None], 1e6, 0.0) * words.values)
    for response in (Delays((0.0, 2.0, 8.0)), HRF()):
        x = align_scans(story, {"f": loud}, recordings, response)
        assert np.abs(x.X["f"][x.run == "run-1"]).max() > 1e3
        np.testing.assert_array_equal(x.X["f"][x.run != "run-1"], 0.0)


@pytest.mark.parametrize("response", [HRF(), Delays((2.0, 4.0))])
def test_a_constant_added_to_a_feature_changes_nothing(story, recordings, words, response):
    """A feature with a large mean does not become a copy of "somebody speaks"."""
    moved = replace(words, values=words.values + 1000.0)
    x = align_scans(story, {"f": words, "g": moved}, recordings, response).X
    np.testing.assert_allclose(x["f"], x["g"], atol=1e-9)
    assert np.abs(x["f"]).max() > 0.1


@pytest.mark.parametrize("kernel", ["glover", "spm"])
def test_words_are_boxcars_convolved_as_nilearn_convolves_and_counts_are_impulses(story, words, kernel):
    recordings = [_recording(run, n=12, start=-2.0) for run in story.runs]
    design = align_scans(story, {"f": words, "n": control("word_count", story)}, recordings, HRF(kernel))
    for recording in recordings:
        mine = design.run == recording.run
        here = story.run == recording.run
        scans = [int(i[-4:]) for i in design.ids[mine]]
        onset, duration = story.onset[here], story.duration[here]
        values = words.values[here] - np.average(words.values[here], axis=0, weights=duration)
        for j in range(3):
            expected, _ = compute_regressor(
                np.vstack([onset, duration, values[:, j]]), kernel, recording.time, oversampling=400
            )
            np.testing.assert_allclose(
                design.X["f"][mine, j], expected[scans, 0], atol=0.03 * np.abs(expected).max()
            )
        expected, _ = compute_regressor(
            np.vstack([onset, 0 * onset, 1 + 0 * onset]), kernel, recording.time, oversampling=400
        )
        expected *= 400 / 2.0  # nilearn gives an event without length one sample of height 1
        np.testing.assert_allclose(
            design.X["n"][mine, 0], expected[scans, 0], atol=0.03 * np.abs(expected).max()
        )


def test_a_sentence_control_fills_its_words_when_gathered_into_scans(story, recordings):
    design = align_scans(story, {"position": control("position", story)}, recordings, Delays((2.0,)))
    spread = control("position", story)
    values = spread.values[[spread.ids.tolist().index(s) for s in story.sentence]]
    as_words = Features("position", story.ids, story.onset, story.duration, story.run, values)
    np.testing.assert_allclose(
        design.X["position"], align_scans(story, {"p": as_words}, recordings, Delays((2.0,))).X["p"]
    )


def test_trimming_takes_seconds_from_both_ends(story, recordings, words):
    full = align_scans(story, {"f": words}, recordings, Delays((2.0,)))
    less = align_scans(story, {"f": words}, recordings, Delays((2.0,)), trim=(3.0, 2.0))
    keep = np.isin(full.ids, less.ids)
    np.testing.assert_array_equal(less.X["f"], full.X["f"][keep])  # rows go, what was heard before them stays
    for run in story.runs:
        n = (less.run == run).sum()
        assert n < (full.run == run).sum()
        assert less.ids[less.run == run][0] == f"{run}/scan-0001"  # 2 to 4 s: overlaps what follows 3 s
    with pytest.raises(AlignmentError, match="no scan falls into the story"):
        align_scans(story, {"f": words}, recordings, Delays((2.0,)), trim=(99.0, 0.0))


# Errors


@pytest.mark.parametrize("make", [align_sentences, align_scans])
def test_a_story_longer_than_its_scans_is_an_error_unless_it_is_trimmed(story, words, make):
    recordings = [_recording("run-1", n=4), _recording("run-2", n=2), _recording("run-3")]
    options = {"delays": (2.0,)} if make is align_sentences else {"response": Delays((2.0,))}
    last = float((story.onset + story.duration)[story.run == "run-2"].max())
    late = int(((story.onset + story.duration > 6.0) & (story.run == "run-2")).sum())
    with pytest.raises(AlignmentError) as message:
        make(story, {"f": words}, recordings, **options)
    assert str(message.value) == (
        f"The story of run 'run-2' lasts until {last:.1f} s, but the recording of subject '01' ends at 4.0 s: {late} words "
        'have no scan. Check tr and stimulus_onset, or leave them out with design.short = "trim".'
    )
    trimmed = make(story, {"f": words}, recordings, short="trim", **options)
    assert 0 < (trimmed.run == "run-2").sum() < (trimmed.run == "run-3").sum()
    assert len(trimmed.X["f"]) == len(trimmed.Y[trimmed.delays[0]]) == len(trimmed.ids)


def test_two_runs_that_are_too_short_are_counted_one_by_one(story, words):
    recordings = [_recording("run-1", n=2), _recording("run-2", n=2), _recording("run-3")]
    late = int(((story.onset + story.duration > 6.0) & (story.run == "run-1")).sum())
    with pytest.raises(
        AlignmentError, match=f"The story of run 'run-1' .* ends at 4.0 s: {late} words have no scan"
    ):
        align_scans(story, {"f": words}, recordings)


def test_a_delay_between_scans_names_the_run(story, recordings, words):
    sentence = (
        r"A delay of 3 s falls between scans of run 'run-1', which are 2 s apart. Use whole multiples of 2 s."
    )
    with pytest.raises(AlignmentError, match=sentence):
        align_sentences(story, {"f": words}, recordings, delays=(4.0, 3.0))
    with pytest.raises(AlignmentError, match=sentence):
        align_scans(story, {"f": words}, recordings, Delays((4.0, 3.0)))


def test_recordings_that_do_not_belong_together_are_named(story, recordings, words):
    space = Space("columns", np.array(["x", "y"]))
    for odd, message in (
        (
            [*recordings, _recording("run-9")],
            "Run 'run-9' of subject '01' was recorded, but the story has no words for it",
        ),
        (
            [recordings[0], _recording("run-2", tr=1.0, n=30)],
            "Run 'run-2' has a TR of 1 s but run 'run-1' 2 s",
        ),
        ([recordings[0], _recording("run-2", space=space)], "Run 'run-2' has other targets than run 'run-1'"),
        ([recordings[0], recordings[0]], "has two recordings of one run"),
        ([], "No run has both words and a recording"),
    ):
        for make in (align_sentences, align_scans):
            with pytest.raises(AlignmentError, match=message):
                make(story, {"f": words}, odd)


def test_a_scan_without_words_is_average(rng):
    gap = make_story({"r": ["One.", "Two."]}, {"r": np.array([0.0, 20.0])}, {"r": np.array([1.0, 1.0])})
    table = Features("f", gap.ids, gap.onset, gap.duration, gap.run, np.array([[3.0], [5.0]]))
    design = align_scans(gap, {"f": table}, [_recording("r", n=14)], Delays((0.0,)))
    x = design.X["f"][:, 0]
    assert x[0] == -1.0
    assert x[10] == 1.0
    np.testing.assert_array_equal(np.delete(x, [0, 10]), 0.0)


def test_features_and_responses_are_computed_when_they_are_looked_up(story, recordings, words):
    class Counting(dict):
        n_reads = 0

        def __getitem__(self, name):
            Counting.n_reads += 1
            return super().__getitem__(name)

    design = align_sentences(story, Counting(f=words, g=words), recordings)
    assert list(design.X) == ["f", "g"]
    assert Counting.n_reads == 0
    design.X["g"]
    assert Counting.n_reads == 1
    with pytest.raises(KeyError):
        design.X["h"]
    with pytest.raises(KeyError):
        design.Y[99.0]


def test_a_nan_target_changes_no_other(story, words):
    values = np.random.default_rng(0).standard_normal((14, 2))
    holed = values.copy()
    holed[:, 1] = np.nan
    for make in (
        lambda r: align_sentences(story, {"f": words}, r),
        lambda r: align_scans(story, {"f": words}, r),
    ):
        full = make([_recording(run, values=values) for run in story.runs])
        with_nan = make([_recording(run, values=holed) for run in story.runs])
        for delay in full.delays:
            assert np.isnan(with_nan.Y[delay][:, 1]).all()
            np.testing.assert_array_equal(with_nan.Y[delay][:, 0], full.Y[delay][:, 0])


@settings(max_examples=20)
@given(st.integers(0, 6), st.sampled_from([1.0, 1.5, 2.0]), st.integers(60, 90))
def test_in_a_single_run_no_sentence_in_training_shares_a_scan_with_a_sentence_in_the_test(gap, tr, n):
    gen = np.random.default_rng(n)
    onset = np.cumsum(gen.uniform(0.3, 3.0, n))
    story = make_story({"r": ["Word."] * n}, {"r": onset}, {"r": gen.uniform(0.1, 4.0, n)})
    recording = _recording("r", n=int((onset[-1] + 20) / tr), tr=tr)
    delays = tuple(tr * k for k in (2, 3, 5))
    design = align_sentences(story, {}, [recording], delays)
    for fold in outer_folds(design.run, design.scans, Protocol(gap=gap, folds=3)):
        for delay in delays:
            used = []
            for rows in (fold.train, fold.test):
                s = story.sentences
                k = [s.ids.tolist().index(i) for i in design.ids[rows]]
                a = np.floor((s.onset[k] + delay) / tr + 1e-9).astype(int)
                b = np.ceil((s.onset[k] + s.duration[k] + delay) / tr - 1e-9).astype(int)
                used.append(
                    {
                        scan
                        for x, y in zip(a, b, strict=True)
                        for scan in range(x, min(y, len(recording.onset)))
                    }
                )
            assert not used[0] & used[1]


# the shapes of a design


def _parts(n=20, n_targets=4):
    return {
        "X": {"x": np.zeros((n, 3))},
        "Y": {0.0: np.zeros((n, n_targets), dtype=np.float32)},
        "ids": np.array([f"r/row-{i}" for i in range(n)]),
        "run": np.full(n, "r"),
        "scans": np.zeros((n, 2), dtype=int),
        "subject": "01",
        "space": Space("columns", np.array([f"t{i}" for i in range(n_targets)])),
        "left_out": {},
    }


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"space": Space("columns", np.array(["a", "b", "c"]))}, "Y at 0 s has 4 targets, but the space has 3 names"),
        ({"X": {"x": np.zeros((19, 3))}}, "X of 'x' has 19 rows, but the design has 20 ids"),
        ({"X": {"x": np.zeros(20)}}, "X of 'x' needs rows and columns"),
        ({"Y": {0.0: np.zeros((20, 4)), 2.0: np.zeros((21, 4))}}, "Y at 2 s has 21 rows, but the design has 20 ids"),
        ({"Y": {0.0: np.zeros((4, 20))}}, "Y at 0 s has 4 rows"),
        ({"run": np.full(19, "r")}, "20 ids, but run has 19 rows"),
        ({"scans": np.zeros((21, 2), dtype=int)}, "20 ids, but scans has 21 rows"),
        ({"scans": np.zeros((20, 3), dtype=int)}, "the first and the last of each row"),
        ({"ids": np.array(["a"] * 20)}, "two rows are called 'a'"),
    ],
)  # fmt: skip
def test_a_design_whose_parts_do_not_meet_is_one_sentence(change, sentence):
    Design(**_parts())
    with pytest.raises(AlignmentError, match=sentence) as caught:
        Design(**{**_parts(), **change})
    assert "\n" not in str(caught.value)
    assert "subject '01'" in str(caught.value)
