"""Reading Brain: runs are articles, words are rebuilt from fixations, and each reader has a clock."""

from __future__ import annotations

import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from langcortex.brain.recording import Cleaning
from langcortex.datasets import Corpus
from langcortex.datasets.corpus import Reading
from langcortex.datasets.reading_brain import dataset as rb
from langcortex.datasets.reading_brain.text import LENGTHS, read_sentences
from langcortex.errors import LangcortexError, RecordingError, SettingsError, StoryError
from reference.reading_brain import ALL_WORDS, SENTENCES, derivative, surfaces, word, write_reader, write_run


def open_corpus(base: Path, reading: Reading | None = None, **options: Any) -> rb.ReadingBrain:
    return rb.corpus(base, reading or Reading(), **options)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("ds003974")
    write_reader(base, "01")
    write_reader(base, "02", order=(5, 4, 3, 2, 1), pace=300)
    return base


# story


def test_the_published_numbers_of_sentences_and_words() -> None:
    assert [len(lengths) for lengths in LENGTHS] == [31, 31, 28, 28, 30]
    assert [sum(lengths) for lengths in LENGTHS] == [310, 302, 308, 307, 304]


def test_words_are_collected_from_the_fixations_of_all_readers(tmp_path: Path) -> None:
    """Neither reader fixated all words, but both together did."""
    odd = {key: [w for w in words if w % 2] for key, words in ALL_WORDS.items()}
    even = {key: [w for w in words if w % 2 == 0 or w == 1] for key, words in ALL_WORDS.items()}
    write_reader(tmp_path, "01", looks=odd)
    write_reader(tmp_path, "02", looks=even)
    story = open_corpus(tmp_path).story()
    assert len(story) == 1531
    assert len(story.sentences) == 148
    assert story.runs == ("article1", "article2", "article3", "article4", "article5")
    assert story.text[:2].tolist() == [word(1, 1, 1), word(1, 1, 2)]
    assert story.ids[[0, -1]].tolist() == ["article1/word-0000", "article5/word-0303"]
    assert story.sentence[[0, -1]].tolist() == ["article1/sentence-000", "article5/sentence-029"]


def test_a_word_without_fixations_is_an_error_that_names_its_sentence(tmp_path: Path) -> None:
    write_reader(tmp_path, "01", looks={**ALL_WORDS, (2, 3): range(1, 9)})
    with pytest.raises(StoryError, match=r"Sentence t\.02\.03 lacks 2 of its 10 words.*data\.options\.text"):
        open_corpus(tmp_path).story()


def test_nominal_times_are_medians_over_readers(two: Path) -> None:
    """Two readers took 0.2 and 0.3 s per word: sentences follow each other without a pause, words are equally long."""
    story = open_corpus(two).story()
    first = story.take(["article1"])
    assert first.onset[:3] == pytest.approx([0.0, 0.25, 0.5])
    assert first.sentences.onset[1] == pytest.approx(7 * 0.25)
    assert first.onset[-1] + first.duration[-1] == pytest.approx(310 * 0.25)
    assert story.take(["article5"]).onset[0] == 0.0


def test_the_story_of_a_reader_has_the_same_words_at_the_times_of_the_windows(two: Path) -> None:
    corpus = open_corpus(two)
    reader_story = corpus.story_of("02")
    story = corpus.story()
    assert reader_story.ids.tolist() == story.ids.tolist()
    assert reader_story.text.tolist() == story.text.tolist()
    assert reader_story.sentence.tolist() == story.sentence.tolist()
    sentences = reader_story.sentences
    assert sentences.onset[:2] == pytest.approx([9.537, 9.537 + 7 * 0.3 + 1.5])
    assert sentences.duration[:2] == pytest.approx([2.1, 3.0])
    # a word begins with its first fixation, 10 ms into each step of 300
    assert reader_story.onset[1] == pytest.approx(9.537 + 0.01 + 0.3)


def test_a_sentence_without_fixations_has_its_window_and_its_words(tmp_path: Path) -> None:
    write_reader(tmp_path, "01")
    write_reader(tmp_path, "02", looks={**ALL_WORDS, (1, 1): ()})
    reader_story = open_corpus(tmp_path).story_of("02")
    assert reader_story.sentences.duration[0] == pytest.approx(0.2)
    assert reader_story.duration[:7] == pytest.approx([0.2 / 7] * 7)


def test_only_articles_that_were_read_are_in_the_story(tmp_path: Path) -> None:
    for run, article in enumerate((4, 2), start=1):
        write_run(tmp_path, "01", run, article, ALL_WORDS)
    corpus = open_corpus(tmp_path)
    assert corpus.story().runs == ("article2", "article4")
    assert corpus.story_of("01").runs == ("article2", "article4")


def test_a_run_without_fixations_is_left_out_and_listed(two: Path, tmp_path: Path) -> None:
    write_reader(tmp_path, "01")
    write_reader(
        tmp_path, "21", looks={key: () if key[0] == 4 else words for key, words in ALL_WORDS.items()}
    )
    corpus = open_corpus(tmp_path)
    assert corpus.excluded_files() == {
        "sub-21_task-read_run-5_events.tsv": "no fixation on a word was recorded"
    }
    assert "article4" not in corpus.story_of("21").runs
    assert "article4" in corpus.story_of("01").runs
    assert open_corpus(two).excluded_files() == {}


def test_two_runs_with_one_article_are_an_error(tmp_path: Path) -> None:
    write_reader(tmp_path, "01", order=(1, 2, 3, 4, 1))
    with pytest.raises(StoryError, match="Runs 1 and 5 of subject '01' both have article 1"):
        open_corpus(tmp_path).story()


def test_an_absent_sentence_of_a_truncated_file_is_named(tmp_path: Path) -> None:
    write_reader(tmp_path, "01")
    path = write_run(tmp_path, "02", 1, 3, ALL_WORDS)
    content = path.read_text(encoding="utf-8")
    path.write_text(content[: content.index("t.03.28")].rsplit("\n", 1)[0] + "\n", encoding="utf-8")
    with pytest.raises(
        StoryError, match=r"sub-02_task-read_run-1_events.tsv.* never shows sentence t\.03\.28"
    ):
        open_corpus(tmp_path).story_of("02")
    (tmp_path / "sub-01" / "func" / "sub-01_task-read_run-1_events.tsv").unlink()
    with pytest.raises(StoryError, match=r"never show sentence t\.03\.28"):
        open_corpus(tmp_path).story()


def test_a_sentence_that_does_not_exist_is_named(tmp_path: Path) -> None:
    path = write_run(tmp_path, "01", 1, 3, ALL_WORDS)
    path.write_text(path.read_text(encoding="utf-8").replace("t.03.28", "t.03.29"), encoding="utf-8")
    with pytest.raises(StoryError, match=r"name sentence t\.03\.29, which Reading Brain does not have"):
        open_corpus(tmp_path).story()


def test_sentences_cannot_be_chosen(two: Path) -> None:
    with pytest.raises(SettingsError, match="shown on the screen"):
        open_corpus(two, Reading(sentences="punctuation")).story()


def test_files_that_disagree_on_a_word_are_an_error(tmp_path: Path) -> None:
    write_reader(tmp_path, "01")
    path = write_run(tmp_path, "02", 1, 3, ALL_WORDS)
    path.write_text(path.read_text(encoding="utf-8").replace(word(3, 5, 2), "other"), encoding="utf-8")
    with pytest.raises(StoryError, match=r"Word 2 of sentence t\.03\.05 is 'w35x2' in .* but 'other' in"):
        open_corpus(tmp_path).story()


# the table of sentences


def table_of(path: Path, changed: Mapping[tuple[int, int], str | None] | None = None) -> Path:
    rows = ["id,n,missing,ambiguous,text"]
    for a, s in SENTENCES:
        text = " ".join(word(a, s, w) for w in ALL_WORDS[a, s])
        text = text if changed is None else changed.get((a, s), text)  # type: ignore[assignment]
        if text is not None:
            rows.append(f't.{a:02d}.{s:02d},9,0,0,"{text}"')
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path


def test_a_table_has_the_text_and_may_correct_case_and_punctuation(tmp_path: Path) -> None:
    write_reader(tmp_path, "01", looks={**ALL_WORDS, (1, 1): range(1, 5)})
    better = " ".join(word(1, 1, w) for w in ALL_WORDS[1, 1]).capitalize() + "?"
    story = open_corpus(tmp_path, text=str(table_of(tmp_path / "text.csv", {(1, 1): better}))).story()
    assert story.text[0] == "W11x1"
    assert story.text[6] == "w11x7?"
    assert len(story) == 1531


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({(2, 1): None}, r"has no sentence t\.02\.01"),
        ({(2, 1): "too few"}, r"t\.02\.01 has 2 words, but 10 were shown"),
        ({(1, 1): "a b c d e f g"}, r"word 1 of sentence t\.01\.01 is 'a', but 'w11x1' was shown"),
        ({(1, 1): " "}, r"row 2: an id such as 't\.01\.01' and a text are needed"),
    ],
)
def test_a_table_that_differs_from_the_screen_is_an_error(
    two: Path, tmp_path: Path, changed: Mapping[tuple[int, int], str | None], message: str
) -> None:
    with pytest.raises(StoryError, match=message):
        open_corpus(two, text=str(table_of(tmp_path / "text.csv", changed))).story()


def test_a_table_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "text.csv"
    for content, message in (
        ("id,text\n", "no sentences"),
        ("id,text\nt.01.01,a\nt.01.01,b\n", "twice"),
        ("x,y\n1,2\n", "row 2"),
    ):
        path.write_text(content, encoding="utf-8")
        with pytest.raises(StoryError, match=message):
            read_sentences(path)
    path.write_bytes(b"id,text\n\xff\xfe")
    with pytest.raises(StoryError, match="UTF-8"):
        read_sentences(path)


# recordings


def test_reading_brain_is_a_corpus_with_a_citation(two: Path) -> None:
    corpus = open_corpus(two)
    assert isinstance(corpus, Corpus)
    assert "10.18112/openneuro.ds003974" in corpus.citation()
    assert "CC0" in corpus.licence()


def test_runs_are_identified_by_the_sentences_of_their_article(two: Path, rng: np.random.Generator) -> None:
    """Run 1 of subject 01 is article 3; its recording has scans of 0.4 s that count from the start of the scanner."""
    surfaces(two, "01", range(1, 6), rng)
    corpus = open_corpus(two, Reading(cleaning={"detrend": False, "high_pass": None, "standardise": False}))
    assert corpus.subjects() == ["01"]
    assert corpus.readers() == ["01", "02"]
    assert corpus.runs("01") == ["article1", "article2", "article3", "article4", "article5"]
    left, right = corpus.files("01")["article3"].path  # type: ignore[misc]
    assert left.name == "sub-01_task-read_run-1_hemi-L_space-fsaverage5_bold.func.gii"
    assert right.name == "sub-01_task-read_run-1_hemi-R_space-fsaverage5_bold.func.gii"
    recording = corpus.recording("01", "article3")
    assert recording.tr == 0.4
    assert recording.onset[:3].tolist() == pytest.approx([0.0, 0.4, 0.8])
    assert recording.space.hemispheres == (4, 4)
    assert corpus.inventory("01")["article5"] == (12, 0.4, 0.0)


def test_volumes_masks_and_confounds_are_found_by_their_entities(tmp_path: Path) -> None:
    write_run(tmp_path, "07", 2, 5, ALL_WORDS)
    for name in (
        "space-MNI152NLin2009cAsym_res-2_desc-preproc_bold.nii.gz",
        "space-MNI152NLin2009cAsym_res-2_desc-brain_mask.nii.gz",
        "space-MNI152NLin2009cAsym_res-2_boldref.nii.gz",
        "space-MNI152NLin6Asym_desc-preproc_bold.nii.gz",
        "desc-confounds_timeseries.tsv",
    ):
        derivative(tmp_path, "07", 2, name)
    reading = Reading(cleaning={"confounds": ("trans_x",)})
    file = open_corpus(tmp_path, reading, space="MNI152NLin2009cAsym").files("07")["article5"]
    assert isinstance(file.path, Path)
    assert file.path.name.endswith("run-2_space-MNI152NLin2009cAsym_res-2_desc-preproc_bold.nii.gz")
    assert file.mask is not None
    assert file.mask.name.endswith("desc-brain_mask.nii.gz")
    assert file.confounds is not None
    assert file.tr == 0.4
    assert open_corpus(tmp_path, space="MNI152NLin2009cAsym").files("07")["article5"].confounds is None
    derivative(tmp_path, "07", 2, "space-MNI152NLin2009cAsym_res-1_desc-preproc_bold.nii.gz")
    with pytest.raises(RecordingError, match="Two files are run 'article5'"):
        open_corpus(tmp_path, space="MNI152NLin2009cAsym").files("07")
    chosen = open_corpus(tmp_path, space="MNI152NLin2009cAsym_res-1").files("07")["article5"].path
    assert "res-1" in str(chosen)


def test_derivatives_may_be_elsewhere_and_have_old_names(tmp_path: Path) -> None:
    write_run(tmp_path / "raw", "07", 2, 5, ALL_WORDS)
    for hemi in "LR":
        derivative(tmp_path, "07", 2, f"space-fsaverage5_hemi-{hemi}.func.gii")
    corpus = open_corpus(tmp_path / "raw", preprocessed=str(tmp_path / "derivatives" / "fmriprep"))
    assert corpus.runs("07") == ["article5"]


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="ds003974"):
        open_corpus(tmp_path).subjects()
    with pytest.raises(StoryError, match="ds003974"):
        open_corpus(tmp_path).story()
    for run, article in enumerate((3, 1), start=1):
        write_run(tmp_path, "01", run, article, ALL_WORDS)
    with pytest.raises(RecordingError, match="run fMRIPrep on them"):
        open_corpus(tmp_path).subjects()
    derivative(tmp_path, "01", 1, "hemi-L_space-fsaverage5_bold.func.gii")
    derivative(tmp_path, "01", 2, "hemi-L_space-fsaverage5_bold.func.gii")
    with pytest.raises(RecordingError, match="one hemisphere only"):
        open_corpus(tmp_path).files("01")
    derivative(tmp_path, "01", 2, "hemi-R_space-fsaverage5_bold.func.gii")
    with pytest.raises(RecordingError, match=r"'article3' .*\(run 1\) has one hemisphere only"):
        open_corpus(tmp_path).files("01")
    derivative(tmp_path, "01", 1, "hemi-L_space-fsaverage5_bold.func.gii").unlink()
    with pytest.raises(RecordingError, match="no preprocessed image in space fsaverage5"):
        open_corpus(tmp_path).files("01")
    with pytest.raises(RecordingError, match="Subject '09' was not found"):
        open_corpus(tmp_path, Reading(subjects=["09"])).subjects()
    with pytest.raises(RecordingError, match="Subject '09' has no events"):
        open_corpus(tmp_path).story_of("09")


def test_images_not_downloaded_say_so(two: Path, tmp_path: Path) -> None:
    write_run(tmp_path, "01", 1, 3, ALL_WORDS)
    for hemi in "LR":
        derivative(tmp_path, "01", 1, f"hemi-{hemi}_space-fsaverage5_bold.func.gii").write_text(
            "/annex/objects/MD5E-s1"
        )
    with pytest.raises(RecordingError, match="datalad get"):
        open_corpus(tmp_path).recording("01", "article3")


def test_the_usual_cleaning_is_the_package_s() -> None:
    assert rb.ReadingBrain.default_cleaning == Cleaning()


def test_all_readers_fixations_are_one_table_in_seconds(two: Path) -> None:
    table = open_corpus(two).fixations("01")
    assert len(table) == 1531
    assert table.article.drop_duplicates().tolist() == [1, 2, 3, 4, 5]
    assert table.duration.tolist() == pytest.approx([0.18] * 1531)


# released with Gao et al. 2025


class Restricted(pickle.Unpickler):
    """An unpickler of arrays and lists only."""

    def find_class(self, module: str, name: str) -> Any:
        allowed = {
            ("multiarray", "_reconstruct"),
            ("numpy", "ndarray"),
            ("numpy", "dtype"),
            ("multiarray", "scalar"),
        }
        if not module.startswith("numpy") or (module.rsplit(".", 1)[-1], name) not in allowed:
            raise pickle.UnpicklingError(f"{module}.{name} is not allowed")
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)


def released(shared_data: Path, kind: str) -> dict[tuple[int, int], np.ndarray]:
    with (shared_data / "gao2025" / "golden_attention" / f"mean_saccade_{kind}_p1.pkl").open("rb") as file:
        articles = Restricted(file).load()
    return {(a, s): m for a, rows in enumerate(articles, 1) for s, m in enumerate(rows, 1)}


def trails(counts: np.ndarray) -> list[list[int]]:
    """Split saccades into the fewest unbroken paths (Hierholzer's algorithm, with a node that joins loose ends)."""
    n = len(counts)
    out: list[list[int]] = [[j for j in range(n) for _ in range(int(counts[i, j]))] for i in range(n)]
    excess = counts.sum(axis=1) - counts.sum(axis=0)
    out.append([i for i in range(n) for _ in range(max(int(excess[i]), 0))])
    for i in range(n):
        out[i] += [n] * max(-int(excess[i]), 0)
    circuit: list[int] = []
    stack = [n] if out[n] else [next(i for i in range(n) if out[i])]
    while stack:
        if out[stack[-1]]:
            stack.append(out[stack[-1]].pop())
        else:
            circuit.append(stack.pop())
    assert not any(out), "the moves of this sentence are not connected"
    paths: list[list[int]] = [[]]
    for node in reversed(circuit):
        if node == n:
            paths.append([])
        else:
            paths[-1].append(node + 1)
    return [path for path in paths if path]


def compared(
    mine: Mapping[str, np.ndarray], theirs: Mapping[tuple[int, int], np.ndarray]
) -> tuple[float, float]:
    """Correlate all cells with the released ones and with their transpose."""
    pairs = [
        (mine[f"article{a}/sentence-{s - 1:03d}"][: len(m), : len(m)], m) for (a, s), m in theirs.items()
    ]
    flat = np.concatenate([x.ravel() for x, _ in pairs])
    straight, across = (
        np.corrcoef(flat, np.concatenate([(m.T if turned else m).ravel() for _, m in pairs]))[0, 1]
        for turned in (False, True)
    )
    return float(straight), float(across)


def test_released_saccades_are_those_of_events_written_from_them(shared_data: Path, tmp_path: Path) -> None:
    """The released means times 51 readers are integer counts; events files with their paths have the same means."""
    theirs = released(shared_data, "num")
    readers: list[dict[tuple[int, int], list[int]]] = [{} for _ in range(51)]
    for key, mean in theirs.items():
        counts = np.round(mean * 51).astype(int)
        assert np.abs(counts - mean * 51).max() < 1e-9
        paths = trails(counts)
        assert len(paths) <= 51
        for reader, path in zip(readers, paths + [[1]] * (51 - len(paths)), strict=True):
            reader[key] = path
    for i, looks in enumerate(readers):
        write_reader(tmp_path, f"{i + 2:02d}", looks=looks)
    mine = open_corpus(tmp_path).mean_saccades()
    straight, across = compared(mine, theirs)
    assert straight == pytest.approx(1.0, abs=1e-12)
    assert across < 0.5
    assert mine["article1/sentence-000"][0, 1] == pytest.approx(41 / 51)


@pytest.mark.slow
def test_published_events_have_the_released_saccades() -> None:
    """On ds003974 itself: 52 readers, 148 sentences, 1531 words, and r > .99 with the released means of readers 02 to 52."""
    shared = Path(
        os.environ.get("LANGCORTEX_SHARED_DATA", Path(__file__).resolve().parents[4] / "shared" / "data")
    )
    base = Path(os.environ.get("LANGCORTEX_DS003974", shared / "ds003974"))
    if not any(base.glob("sub-52/func/*_events.tsv")) or not (shared / "gao2025").is_dir():
        pytest.skip(f"no folder {base} with the events of ds003974 (set LANGCORTEX_DS003974)")
    text = shared / "gao2025" / "reading_brain_sentences_from_events.csv"
    corpus = open_corpus(base, text=str(text))
    story = corpus.story()
    assert (len(corpus.readers()), len(story.sentences), len(story)) == (52, 148, 1531)
    assert open_corpus(base).story().text.tolist() == story.text.tolist()
    assert list(corpus.excluded_files()) == ["sub-21_task-read_run-4_events.tsv"]
    readers = [r for r in corpus.readers() if r != "01"]
    for kind, weight in (("num", "count"), ("dur", "arriving")):
        straight, across = compared(corpus.mean_saccades(readers, weight), released(shared, kind))
        assert straight > 0.99
        assert across < 0.4


def test_every_error_of_a_truncated_file_is_one_sentence(tmp_path: Path) -> None:
    path = write_run(tmp_path, "01", 1, 3, ALL_WORDS)
    content = path.read_bytes()
    for cut in range(1, len(content), 6007):
        path.write_bytes(content[:cut])
        with pytest.raises(LangcortexError) as error:
            open_corpus(tmp_path).story()
        assert "\n" not in str(error.value)
