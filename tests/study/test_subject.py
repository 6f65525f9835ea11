"""From settings to nouns: corpora open by name, rows are what the study says, and a wrong clock stops a run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from langcortex.brain.timing import hrf_weights
from langcortex.errors import AlignmentError, SettingsError, StoryError
from langcortex.study.check import as_rows, check_study
from langcortex.study.clock import find_sampled_lag, sample_recordings
from langcortex.study.corpus import open_corpus, read_words
from langcortex.study.run import run_study
from langcortex.study.settings import Study
from langcortex.study.settings_file import make_study
from langcortex.study.subject import read_subject, subject_story

RUNS = ("a", "b", "c")

MINE = '''
import numpy as np
from langcortex import Responses, Space
from langcortex.stimulus import make_story

NAMES = np.array(["x", "y"])

class Sentences:
    """Sixty sentences in three passages, each answered once; x follows how long a sentence is."""

    def __init__(self, missing=0):
        self.missing = missing

    def subjects(self):
        return ["p1", "p2"]

    def story(self):
        words, times, ends = {}, {}, {}
        for k, run in enumerate(("p-a", "p-b", "p-c")):
            lengths = np.random.default_rng(k).integers(3, 12, 20)
            words[run] = ["word"] * int(lengths.sum())
            ends[run] = np.repeat(np.arange(20), lengths).tolist()
            times[run] = np.arange(lengths.sum()) * 0.5
        return make_story(words, times, {r: np.full(len(t), 0.5) for r, t in times.items()}, sentence=ends)

    def runs(self, subject):
        return ["p-a", "p-b", "p-c"]

    def recording(self, subject, run):
        s = self.story().sentences
        rows = np.flatnonzero(s.run == run)[self.missing:][::-1]
        rng = np.random.default_rng([int(subject[1:]), ord(run[-1])])
        values = rng.standard_normal((len(rows), 2)).astype(np.float32)
        values[:, 0] += s.n_words[rows]
        return Responses(values, s.ids[rows], run, subject, Space("columns", NAMES))

def corpus(path, missing=0):
    return Sentences(missing)
'''


def speak(folder: Path, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Write three runs of words in bursts, with pauses, and give their onsets."""
    onsets = {}
    (folder / "words").mkdir()
    for run in RUNS:
        gaps = np.where(rng.random(700) < 0.08, rng.uniform(2.5, 8, 700), 0.35)
        times = np.cumsum(gaps)
        times = times[times < 300]
        lines = ["word\tonset\tduration"]
        for i, t in enumerate(times):
            if i and t - times[i - 1] > 1:
                lines.append(f"#\t{times[i - 1] + 0.3}\t{t - times[i - 1] - 0.3}")
            lines.append(f"w{i}{'.' if i % 6 == 5 else ''}\t{t}\t0.3")
        (folder / f"words/{run}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
        onsets[run] = times
    return onsets


@pytest.fixture
def folder(tmp_path: Path, rng: np.random.Generator) -> Path:
    """Two subjects whose first three targets follow the word rate; 160 scans of 2 s a run."""
    onsets = speak(tmp_path, rng)
    for subject in ("1", "2"):
        for run, times in onsets.items():
            scans = np.arange(160) * 2.0 + 1.0
            rate = np.asarray(
                hrf_weights(times, np.full(len(times), 0.3), scans, shape="impulse").sum(axis=1)
            )
            values = rng.standard_normal((160, 8)) * 0.8
            values[:, :3] += ((rate - rate.mean()) / rate.std()).reshape(-1, 1)
            table = pd.DataFrame(values, columns=[f"t{i}" for i in range(8)])
            table.to_csv(tmp_path / f"s{subject}_{run}.bold.tsv", sep="\t", index=False)
    return tmp_path


def study(folder: Path, **tables: dict[str, object]) -> Study:
    values: dict[str, object] = {
        "story": {"files": "words/{run}.tsv"},
        "recording": {"files": "s{subject}_{run}.bold.tsv", "tr": 2.0},
        "features": {"controls": ["word_count"]},
        "protocol": {"confounds": [], "n_nulls": 0, "penalties": [0.1, 10.0]},
        "design": {"rows": "scans"},
    }
    for name, table in tables.items():
        values[name] = {**values.get(name, {}), **table}  # type: ignore[dict-item]
    values["story"] = {"files": "words/{run}.tsv", **tables.get("story", {})}
    return make_study(values, folder=folder)


# corpora by name


def test_an_unknown_corpus_names_those_that_are_known(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"data\.corpus is 'lppp'\. It is \"files\", .*lpp"):
        open_corpus(make_study({"data": {"corpus": "lppp"}}, folder=tmp_path))


def test_a_known_corpus_refuses_patterns_it_would_ignore(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"recording\.files belongs to data\.corpus = \"files\""):
        open_corpus(make_study({"data": {"corpus": "lpp"}, "recording": {"files": "x"}}, folder=tmp_path))


def test_an_option_that_a_corpus_does_not_take_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"no option 'lang' \(data\.options\)\. It takes: language, kind"):
        open_corpus(make_study({"data": {"corpus": "lpp", "options": {"lang": "EN"}}}, folder=tmp_path))


def test_cleaning_that_the_study_leaves_open_is_the_corpuss_own(folder: Path) -> None:
    corpus = open_corpus(study(folder, recording={"standardise": False}))
    (recording, *_) = read_subject(corpus, "1")
    assert recording.values.std() < 1.0  # type: ignore[union-attr]
    assert abs(float(np.mean(recording.values))) < 1e-5  # type: ignore[union-attr]  # still detrended


# rows


def test_phrases_and_words_are_rows_too(folder: Path) -> None:
    settings = study(
        folder, design={"rows": "phrases", "delays": [4.0, 6.0]}, protocol={"confounds": ["duration"]}
    )
    story, _ = read_words(settings, open_corpus(settings))
    phrases = subject_story(settings, open_corpus(settings), story, "1").sentences
    assert str(phrases.ids[0]) == "a/phrase-000"
    assert len(phrases) > len(RUNS) * 5
    results = run_study(settings)
    assert results.counts["phrases"] == len(phrases)
    words = subject_story(
        study(folder, design={"rows": "words"}), open_corpus(settings), story, "1"
    ).sentences
    assert words.ids.tolist() == story.ids.tolist()


def test_a_story_without_pauses_has_no_phrases(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(MINE, encoding="utf-8")
    settings = make_study({"data": {"corpus": "mine:corpus"}, "design": {"rows": "phrases"}}, folder=tmp_path)
    corpus = open_corpus(settings)
    with pytest.raises(StoryError, match="marks no pauses"):
        subject_story(settings, corpus, corpus.story(), "p1")


# a text of one's own


def test_ones_own_text_is_read_by_models_and_what_did_not_align_is_kept(folder: Path) -> None:
    for run in RUNS:
        words = [line.split("\t")[0] for line in (folder / f"words/{run}.tsv").read_text().splitlines()[1:]]
        text = " ".join(w.upper() for w in words if w != "#") + " The end!"
        (folder / f"text_{run}.txt").write_text(text, encoding="utf-8")
    settings = study(folder, story={"text": "text_{run}.txt"})
    story, odd = read_words(settings, open_corpus(settings))
    assert str(story.text[0]) == "W0"
    assert odd is not None
    assert odd.text.tolist() == ["The", "end!"] * 3
    run_study(settings)
    kept = pd.read_csv(settings.output_folder / "text_alignment.tsv", sep="\t")
    assert kept.what.tolist() == ["text without a time"] * 6
    assert (
        check_study(settings, clock="none").facts["text"]
        == "aligned to the timed words; 6 × text without a time"
    )


# the clock


def test_recordings_that_speak_for_a_clock_are_spread_over_subjects_and_runs(folder: Path) -> None:
    corpus = open_corpus(study(folder))
    assert sample_recordings(corpus, ["1", "2"], 3) == [("1", "a"), ("2", "b"), ("1", "c")]
    assert len(set(sample_recordings(corpus, ["1", "2"], 9))) == 6


def test_a_right_clock_runs_and_check_says_so(folder: Path) -> None:
    settings = study(folder)
    found = check_study(settings)
    assert found.problems == []
    assert "is right" in found.facts["clock"]
    assert len(found.lags) == 6
    rows = as_rows(found)
    assert {row[-1] for row in rows} == {"+0 s"}
    scores = run_study(settings).scores
    assert scores[(scores.run == "all") & (scores.metric == "r")].value.mean() > 0.2


def test_a_wrong_clock_is_reported_and_refused_unless_overridden(folder: Path) -> None:
    """Said to begin 4 s before it did: responses come 4 s later than the words say."""
    wrong = {"stimulus_onset": -4.0}
    (problem,) = check_study(study(folder, recording=wrong)).problems
    assert "responses come 4 s (2 scans) later than word onsets predict" in problem
    assert "Change recording.stimulus_onset by +4 s" in problem
    with pytest.raises(AlignmentError, match=r"Change recording\.stimulus_onset by \+4 s"):
        run_study(study(folder, recording=wrong))
    reported = run_study(study(folder, recording={**wrong, "clock": "report"}))
    assert sum("is off: responses come 4 s" in w for w in reported.warnings) == 2
    assert run_study(study(folder, recording={**wrong, "clock": "trust"})).warnings == ()
    mended = study(folder, recording={"stimulus_onset": 0.0})
    lag = find_sampled_lag(
        mended, open_corpus(mended), read_words(mended, open_corpus(mended))[0], ["1", "2"]
    )
    assert lag is not None
    assert (lag.seconds, lag.is_off) == (0.0, False)


def test_two_swapped_runs_are_seen(folder: Path) -> None:
    """Responses to b called a, and the other way: the rate of words no longer explains them."""
    for subject in ("1", "2"):
        a, b = folder / f"s{subject}_a.bold.tsv", folder / f"s{subject}_b.bold.tsv"
        kept = a.read_bytes()
        a.write_bytes(b.read_bytes())
        b.write_bytes(kept)
    lags = check_study(study(folder)).lags
    assert all(lags[s, "c"].is_detected for s in ("1", "2"))
    assert not any(
        lags[s, run].is_detected and not lags[s, run].is_off for s in ("1", "2") for run in ("a", "b")
    )


# rows that were answered one by one


def test_sentences_that_were_answered_one_by_one_meet_by_id(tmp_path: Path) -> None:
    """The responses are given backwards: by position nothing would fit."""
    (tmp_path / "mine.py").write_text(MINE, encoding="utf-8")
    settings = make_study(
        {
            "data": {"corpus": "mine:corpus", "options": {"missing": 2}},
            "features": {"controls": ["word_count"]},
            "protocol": {"confounds": [], "n_nulls": 0, "penalties": [0.1, 10.0]},
        },
        folder=tmp_path,
    )
    results = run_study(settings)
    r = results.maps["word_count"][0]
    assert r[0] > 0.8
    assert abs(r[1]) < 0.35
    assert results.counts["subjects"]["p1"]["pieces left out"] == 6
    found = check_study(settings)
    assert found.problems == []
    assert found.facts["recordings"].startswith("2 subjects, 6 runs")


def test_scans_cannot_be_rows_where_there_are_none(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(MINE, encoding="utf-8")
    settings = make_study(
        {"data": {"corpus": "mine:corpus"}, "design": {"rows": "scans"}, "protocol": {"confounds": []}},
        folder=tmp_path,
    )
    with pytest.raises(SettingsError, match="this corpus has no scans"):
        run_study(settings)
