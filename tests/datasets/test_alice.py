"""Alice: the published tables begin at second 20 of the words, and damaged files are reported in one sentence."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from langcortex.brain.timing import hrf_weights
from langcortex.datasets import Corpus, alice
from langcortex.datasets.corpus import Reading
from langcortex.errors import LangcortexError, RecordingError, SettingsError, StoryError


def textgrid(words: int = 40, until: float = 736.0, declared: int | None = None) -> str:
    """Write a TextGrid as the published one is laid out, whose words end at `until` seconds."""
    edges = np.linspace(20.0, until, words + 1)
    head = (
        'File type = "ooTextFile"\nObject class = "TextGrid"\n\nxmin = 12.07\nxmax = 743.6\ntiers? <exists>\nsize = 1\nitem []:\n'
        '    item [1]:\n        class = "IntervalTier"\n        name = "word"\n        xmin = 12.07\n        xmax = 743.6\n'
        f"        intervals: size = {(words + 1) if declared is None else declared}\n"
    )
    rows = [
        (12.07, 20.0, "sp"),
        *((a, b, f"w{i}") for i, (a, b) in enumerate(pairwise(edges))),
    ]
    return head + "".join(
        f'        intervals [{i + 1}]:\n            xmin = {a}\n            xmax = {b}\n            text = "{w}"\n'
        for i, (a, b, w) in enumerate(rows)
    )


@pytest.fixture
def folder(tmp_path: Path, rng: np.random.Generator) -> Path:
    """Write a corpus of two subjects, and of the one whose table is constant."""
    data, stimulus = tmp_path / "alice_data_shared", tmp_path / "alice_stim_shared"
    stimulus.mkdir()
    (stimulus / alice.TEXTGRID).write_text(textgrid(), encoding="utf-8")
    for mm in (6, 10):
        (data / f"{mm}mm").mkdir(parents=True)
        for subject in ("18", "33", "9"):
            values = np.full((362, 6), 7.0) if subject == "33" else mm + rng.standard_normal((362, 6))
            np.savetxt(data / f"{mm}mm" / f"s{subject}-timecourses.txt", values)
    for subject in ("18", "33", "9"):
        np.savetxt(data / f"s{subject}-rate.txt", np.arange(362.0))
        np.savetxt(data / f"s{subject}-sndpwr.txt", -np.arange(362.0))
        np.savetxt(data / f"s{subject}-rp_run05.e02.txt", np.arange(372.0)[:, None] + np.arange(6))
    return tmp_path


def test_alice_is_a_corpus(folder: Path) -> None:
    assert isinstance(alice.corpus(folder, Reading()), Corpus)


def test_the_constant_subject_is_left_out_and_an_error_when_named(folder: Path) -> None:
    assert alice.corpus(folder, Reading()).subjects() == ["9", "18"]
    named = alice.corpus(folder, Reading(subjects=["33"]))
    with pytest.raises(
        RecordingError, match=r"Subject '33' of Alice cannot be used: its tables have the same"
    ):
        named.recording("33", "alice")


def test_a_recording_begins_at_second_20_and_has_six_named_regions(folder: Path) -> None:
    corpus = alice.corpus(folder, Reading())
    recording = corpus.recording("18", "alice")
    assert recording.onset[:2].tolist() == [20.0, 22.0]
    assert recording.time[0] == 20.0
    assert recording.values.shape == (362, 6)
    assert list(recording.space.regions) == list(alice.REGIONS) == recording.space.names.tolist()
    assert recording.space.regions["LPTL"].tolist() == [False, False, True, False, False, False]
    assert corpus.inventory("18") == {"alice": (362, 2.0, -20.0)}
    assert corpus.runs("18") == ["alice"]


def test_the_radius_of_the_spheres_is_6_or_10(folder: Path) -> None:
    six, ten = (alice.corpus(folder, Reading(), mm).files("9")["alice"].path for mm in (6, 10))
    assert six == folder / "alice_data_shared/6mm/s9-timecourses.txt"
    assert ten == folder / "alice_data_shared/10mm/s9-timecourses.txt"
    with pytest.raises(SettingsError, match=r"6 and 10 mm; data\.options.smoothing cannot be 8"):
        alice.corpus(folder, Reading(), smoothing=8)


def test_a_study_may_name_regions(folder: Path) -> None:
    corpus = alice.corpus(folder, Reading(regions={"temporal": ["LATL", "LPTL"]}))
    assert list(corpus.recording("18", "alice").space.regions) == ["temporal"]


def test_predictors_and_movement_have_one_row_per_scan(folder: Path) -> None:
    corpus = alice.corpus(folder, Reading())
    predictors = corpus.predictors("18")
    assert list(predictors) == ["word_rate", "sound_power"]
    assert predictors["word_rate"][3] == 3.0
    assert predictors["sound_power"][3] == -3.0
    movement = corpus.movement("18")
    assert movement.shape == (362, 6)
    assert movement[0].tolist() == [10.0, 11.0, 12.0, 13.0, 14.0, 15.0]


def test_a_textgrid_that_breaks_off_as_published_is_read(folder: Path) -> None:
    path = folder / "alice_stim_shared" / alice.TEXTGRID
    path.write_text(textgrid(declared=60) + "        intervals [42]:\n       ", encoding="utf-8")
    story = alice.corpus(folder, Reading()).story()
    assert len(story) == 40
    assert story.runs == ("alice",)
    assert story.onset[0] == 20.0


def test_half_a_textgrid_is_an_error(folder: Path) -> None:
    path = folder / "alice_stim_shared" / alice.TEXTGRID
    path.write_text(textgrid()[: len(textgrid()) // 2], encoding="utf-8")
    with pytest.raises(
        StoryError, match=r"breaks off after \d+ s; the published file has words until 735 s. Fetch it"
    ):
        alice.corpus(folder, Reading()).story()


TABLE = "alice_data_shared/6mm/s18-timecourses.txt"


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        (TABLE, "1 2 3 4 5 6\n6 5 4 3 2 1\n" * 50, "has 100 scans, but 362 were published"),
        (TABLE, "1 2 3 4 5 6\n" * 361 + "1 2", "cannot be read as scans × targets"),
        (TABLE, "1 2 3 4 5\n" * 362, "has 5 columns but 6 names"),
        (TABLE, "", r"is empty \(0 bytes\). Fetch it again"),
        (TABLE, "../.git/annex/objects/aa/bb/MD5E-s1--0.txt/MD5E-s1--0.txt\n", "datalad get"),
        (
            "alice_data_shared/s18-rate.txt",
            "1\n" * 300,
            "has 300 rows × 1 columns, but 362 × 1 were published",
        ),
        ("alice_data_shared/s18-rate.txt", "one\n" * 362, "cannot be read as numbers"),
        ("alice_data_shared/s18-rate.txt", "/annex/objects/MD5E-s1--0.txt", "datalad get"),
        ("alice_stim_shared/" + alice.TEXTGRID, "/annex/objects/MD5E-s1--0.TextGrid", "datalad get"),
        ("alice_stim_shared/" + alice.TEXTGRID, "File type", "TextGrid"),
    ],
)
def test_a_damaged_file_is_reported_in_one_sentence(
    folder: Path, name: str, content: str, sentence: str
) -> None:
    (folder / name).write_text(content, encoding="utf-8")
    corpus = alice.corpus(folder, Reading())
    with pytest.raises(LangcortexError, match=sentence):
        _read_all(corpus)


@pytest.mark.parametrize(
    "name", [TABLE, "alice_data_shared/s18-sndpwr.txt", "alice_stim_shared/" + alice.TEXTGRID]
)
def test_a_dangling_link_is_to_be_fetched(folder: Path, name: str) -> None:
    (folder / name).unlink()
    (folder / name).symlink_to(".git/annex/objects/aa/bb/MD5E-s9--0/MD5E-s9--0")
    with pytest.raises(LangcortexError, match="datalad get"):
        _read_all(alice.corpus(folder, Reading()))


def _read_all(corpus: alice.AliceCorpus) -> None:
    corpus.story()
    corpus.recording("18", "alice")
    corpus.predictors("18")
    corpus.movement("18")


def test_a_missing_folder_table_or_subject_is_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="has no folder alice_data_shared"):
        alice.corpus(tmp_path / "elsewhere", Reading()).subjects()
    with pytest.raises(RecordingError, match="Subject '77' was not found"):
        alice.corpus(folder, Reading(subjects=["77"])).subjects()
    (folder / "alice_data_shared" / "s18-rp_run05.e02.txt").unlink()
    with pytest.raises(RecordingError, match=r"Subject '18' of Alice has no file .*s18-rp_"):
        alice.corpus(folder, Reading()).movement("18")


def test_citation_and_licence_are_sentences(folder: Path) -> None:
    corpus = alice.corpus(folder, Reading())
    assert "doi:10.1016/j.bandl.2016.04.008" in corpus.citation()
    assert "CC BY 4.0" in corpus.licence()


@pytest.fixture(scope="module")
def real(shared_data: Path) -> alice.AliceCorpus:
    return alice.corpus(shared_data / "alice", Reading())


def test_the_published_corpus_has_27_subjects_and_2103_words(real: alice.AliceCorpus) -> None:
    assert len(real.subjects()) == 27
    assert "33" not in real.subjects()
    assert len(real.story()) == 2103
    assert {real.movement(subject).shape for subject in real.subjects()} == {(362, 6)}
    assert np.ptp(np.loadtxt(real.path / "alice_data_shared/6mm/s33-timecourses.txt"), axis=0).max() == 0


def test_word_rate_agrees_with_the_published_one_without_a_shift(real: alice.AliceCorpus) -> None:
    """The published predictor agrees best with the SPM kernel sampled at the beginning of scans, at zero shift."""
    story, scans = real.story(), real.recording("18", "alice").time
    published = {subject: real.predictors(subject)["word_rate"] for subject in real.subjects()}

    def agreement(subject: str, shift: float) -> float:
        weights = hrf_weights(story.onset, story.duration, scans + shift, "spm", "impulse")
        return float(np.corrcoef(np.asarray(weights.sum(axis=1)).ravel(), published[subject])[0, 1])

    assert min(agreement(subject, 0.0) for subject in published) >= 0.95
    assert agreement("18", 0.0) > 0.1 + max(agreement("18", -2.0), agreement("18", 2.0))
