"""Stories: every way word timings are written down, read alike; every mistake one sentence with a name in it."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from langcortex.errors import StoryError
from langcortex.stimulus.story import Story, make_story, read_story

INTERVALS = [("#", 0.0, 0.5), ("once", 0.5, 0.9), ("when", 0.9, 1.2), ("", 1.2, 1.5), ("I", 1.5, 1.7), ("#", 1.7, 2.0),
             ("l’été", 2.0, 2.4), ('say ""hi""', 2.4, 3.0), ("sp", 3.0, 3.1), ("end", 3.1, 3.5)]  # fmt: skip
WORDS = ["once", "when", "I", "l’été", 'say "hi"', "end"]


def long_textgrid(tiers, stop=3.5):
    """Write what Praat writes as a text file."""
    lines = [
        'File type = "ooTextFile"',
        'Object class = "TextGrid"',
        "",
        "xmin = 0 ",
        f"xmax = {stop} ",
        "tiers? <exists> ",
    ]
    lines += [f"size = {len(tiers)} ", "item []: "]
    for i, (name, intervals) in enumerate(tiers.items(), 1):
        points = intervals is None
        lines += [f"    item [{i}]:", f'        class = "{"TextTier" if points else "IntervalTier"}" ']
        lines += [f'        name = "{name}" ', "        xmin = 0 ", f"        xmax = {stop} "]
        if points:
            lines += ["        points: size = 0 "]
            continue
        lines += [f"        intervals: size = {len(intervals)} "]
        for k, (label, a, b) in enumerate(intervals, 1):
            lines += [f"        intervals [{k}]:", f"            xmin = {a} ", f"            xmax = {b} "]
            lines += [f'            text = "{label}" ']
    return "\n".join(lines) + "\n"


def short_textgrid(intervals, stop=3.5):
    """Write what Praat writes as a short text file."""
    lines = [
        'File type = "ooTextFile"',
        'Object class = "TextGrid"',
        "",
        "0",
        f"{stop}",
        "<exists>",
        "1",
        '"IntervalTier"',
    ]
    lines += ['"words"', "0", f"{stop}", f"{len(intervals)}"]
    for label, a, b in intervals:
        lines += [f"{a}", f"{b}", f'"{label}"']
    return "\n".join(lines) + "\n"


@pytest.fixture
def written(tmp_path):
    def write(content, name="words.TextGrid", encoding="utf-8"):
        path = tmp_path / name
        path.write_bytes(content.encode(encoding))
        return path

    return write


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be-bom"])
@pytest.mark.parametrize("layout", ["long", "short"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_every_kind_of_textgrid_gives_the_same_story(written, encoding, layout, newline):
    text = long_textgrid({"words": INTERVALS}) if layout == "long" else short_textgrid(INTERVALS)
    text = text.replace("\n", newline)
    if encoding == "utf-16-be-bom":
        text, encoding = "\ufeff" + text, "utf-16-be"
    story = read_story({"run-1": written(text, encoding=encoding)}, sentences="pauses")
    assert story.text.tolist() == WORDS
    np.testing.assert_allclose(story.onset, [0.5, 0.9, 1.5, 2.0, 2.4, 3.1])
    np.testing.assert_allclose(story.onset + story.duration, [0.9, 1.2, 1.7, 2.4, 3.0, 3.5])
    assert story.left_out == {"run-1": 4}
    assert story.ids.tolist() == [f"run-1/word-{i:04d}" for i in range(6)]


def test_pause_groups_end_at_marks_and_at_empty_labels_only_where_there_is_no_mark(written):
    marked = read_story({"r": written(long_textgrid({"words": INTERVALS}))}, sentences="pauses")
    assert marked.sentences.text.tolist() == ["once when I", 'l’été say "hi"', "end"]
    only_empty = [("" if label in ("#", "sp") else label, a, b) for label, a, b in INTERVALS]
    plain = read_story({"r": written(long_textgrid({"words": only_empty}))}, sentences="auto")
    assert plain.sentences.text.tolist() == ["once when", "I", 'l’été say "hi"', "end"]
    assert plain.sentences.ids.tolist() == [f"r/sentence-{i:03d}" for i in range(4)]


def test_a_tier_is_chosen_by_position_or_name(written):
    path = written(long_textgrid({"phones": [("x", 0, 3.5)], "marks": None, "words": INTERVALS}))
    for tier in ("words", 1):
        assert read_story({"r": path}, tier=tier).text.tolist() == WORDS
    with pytest.raises(StoryError, match=r"no interval tier called 'syllables'\. It has: 'phones', 'words'"):
        read_story({"r": path}, tier="syllables")
    with pytest.raises(StoryError, match="has 2 interval tiers, so none at position 2"):
        read_story({"r": path}, tier=2)


def test_an_empty_point_tier_at_the_end_is_no_truncation(written):
    path = written(long_textgrid({"words": INTERVALS, "marks": None}))
    assert read_story({"r": path}).text.tolist() == WORDS


def test_a_truncated_textgrid_is_an_error_or_read_up_to_its_last_complete_interval(written):
    """Wherever it breaks off: every character from interval 7 on is tried."""
    text = long_textgrid({"words": INTERVALS})
    begin = text.index("        intervals [7]")
    ends = [m.end() - 1 for m in re.finditer(r'text = "[^\n]*" $', text, re.MULTILINE)]
    words_after = {6: 3, 7: 4, 8: 5, 9: 5}
    for cut in range(begin, ends[-1]):
        if text[cut - 1 : cut + 1] == '""':
            continue  # between two quotation marks nobody can tell a closing one
        n_complete = sum(end <= cut for end in ends)
        path = written(text[:cut])
        with pytest.raises(
            StoryError, match=f"breaks off after interval {n_complete} of 10. Fetch the file again"
        ):
            read_story({"r": path}, sentences="pauses")
        story = read_story({"r": path}, sentences="pauses", accept_truncated=True)
        assert story.text.tolist() == WORDS[: words_after[n_complete]], text[cut - 40 : cut]
    assert len(read_story({"r": written(text[: ends[-1]])})) == 6


def test_a_short_textgrid_that_breaks_off_is_an_error_too(written):
    text = short_textgrid(INTERVALS)
    with pytest.raises(StoryError, match="breaks off after interval 8 of 10"):
        read_story({"r": written(text[: text.index('"sp"')])})


def test_a_short_textgrid_without_a_last_line_end_keeps_its_last_word(written):
    assert read_story({"r": written(short_textgrid(INTERVALS).rstrip())}).text.tolist() == WORDS


def test_a_file_that_is_not_a_textgrid_is_an_error_with_the_path(written):
    for content in (
        "nothing of the kind",
        'File type = "ooTextFile"\nObject class = "TextGrid"\n\nxmin = 0\n',
    ):
        with pytest.raises(StoryError, match=r"words.TextGrid cannot be read as a TextGrid"):
            read_story({"r": written(content)})
    with pytest.raises(StoryError, match="cannot be read as a TextGrid"):
        read_story({"r": written('text = "été"', encoding="latin-1")})


TABLES = {
    "duration": ("words.tsv", "word\tonset\tduration\nHello\t0.5\t0.25\nworld.\t1\t0.5\n"),
    "end": ("words.tsv", "text\tstart\tend\nHello\t0.5\t0.75\nworld.\t1\t1.5\n"),
    "offset": ("words.csv", "Word,Onset,Offset\nHello,0.5,0.75\nworld.,1.0,1.5\n"),
    "events": ("sub-01_task-a_events.tsv", "onset\tduration\ttrial_type\n0.5\t0.25\tHello\n1\t0.5\tworld.\n"),
    "spaces": ("words.tsv", " word \t onset\tduration \nHello \t0.5\t0.25\n world.\t1\t0.5\n"),
}


@pytest.mark.parametrize("kind", TABLES)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_every_kind_of_table_gives_the_same_story(written, kind, encoding):
    name, content = TABLES[kind]
    story = read_story({"run-1": written(content, name, encoding)})
    assert story.text.tolist() == ["Hello", "world."]
    np.testing.assert_allclose(story.onset, [0.5, 1.0])
    np.testing.assert_allclose(story.duration, [0.25, 0.5])
    assert story.onset.dtype == np.float64


@pytest.mark.parametrize(
    "word", ["silence", "null", "nan", "NA", "TRUE", "None", "N/A", "n/a", "inf", "pause", "s", "1e5", "0"]
)
@pytest.mark.parametrize("name", ["words.tsv", "words.csv"])
def test_words_that_look_like_marks_stay_words(written, word, name):
    sep = "," if name.endswith("csv") else "\t"
    rows = [("word", "onset", "duration"), ("the", "0", "1"), (word, "1", "1"), ("end", "2", "1")]
    story = read_story({"r": written("\n".join(map(sep.join, rows)) + "\n", name)}, sentences="pauses")
    assert story.text.tolist() == ["the", word, "end"]
    as_textgrid = [("the", 0, 1), (word, 1, 2), ("end", 2, 3.5)]
    assert read_story({"r": written(long_textgrid({"words": as_textgrid}))}).text.tolist() == [
        "the",
        word,
        "end",
    ]


@pytest.mark.parametrize("mark", ["#", "sp", "SIL", "<sil>", "<p:>", "{p}", "<pause>", ""])
def test_pauses_are_left_out_and_counted(written, mark):
    story = read_story({"r": written(f"word\tonset\tduration\na\t0\t1\n{mark}\t1\t1\nb\t2\t1\n", "w.tsv")})
    assert story.text.tolist() == ["a", "b"]
    assert story.left_out == {"r": 1}


def test_quotation_marks_in_tables(written):
    csv = 'word,onset,duration\n"Hello, you",0,1\n"""Yes""",1,1\nrock\'n\'roll,2,1\n'
    assert read_story({"r": written(csv, "w.csv")}).text.tolist() == ["Hello, you", '"Yes"', "rock'n'roll"]
    tsv = 'word\tonset\tduration\n"I\t0\t1\nam."\t1\t1\n"She said ""no"""\t2\t1\n"no"\t3\t1\n'
    assert read_story({"r": written(tsv, "w.tsv")}).text.tolist() == ['"I', 'am."', 'She said "no"', '"no"']


def test_a_pause_may_have_no_time_but_a_word_may_not(written):
    story = read_story({"r": written("word\tonset\tduration\n#\tn/a\tn/a\na\t1\t1\n", "w.tsv")})
    assert story.text.tolist() == ["a"]
    with pytest.raises(StoryError, match="Run 'r': 1 words have no time, first 'r/word-0001'"):
        read_story({"r": written("word\tonset\tduration\na\t0\t1\nb\tn/a\t1\n", "w.tsv")})


def test_one_table_may_hold_all_runs(written):
    table = written(
        "section,word,onset,offset\n1,One.,0,1\n1,Two.,1,2\n2,Three.,0,1\n10,Four.,0,1\n", "all.csv"
    )
    story = read_story({"whatever": table})
    assert story.runs == ("1", "2", "10")
    assert story.ids.tolist() == ["1/word-0000", "1/word-0001", "2/word-0000", "10/word-0000"]


def test_sentences_end_where_the_column_the_punctuation_or_a_pause_says(written):
    rows = [
        ("He", "0", "7"),
        ("left!”", "1", "7"),
        ("#", "2", "7"),
        ("Mr", "3", "7"),
        ("B", "4", "8"),
        ("ran…", "5", "8"),
        ("Then", "6", "7"),
    ]
    text = "word\tonset\tduration\tsentence\n" + "".join(f"{w}\t{t}\t1\t{s}\n" for w, t, s in rows)
    path = written(text, "w.tsv")
    expected = {
        "column": ["He left!” Mr", "B ran…", "Then"],
        "punctuation": ["He left!”", "Mr B ran…", "Then"],
        "pauses": ["He left!”", "Mr B ran… Then"],
    }
    for how, sentences in expected.items():
        assert read_story({"r": path}, sentences=how).sentences.text.tolist() == sentences
    assert read_story({"r": path}, sentences="auto").sentences.text.tolist() == expected["column"]
    bare = written("\n".join("\t".join(line.split("\t")[:3]) for line in text.splitlines()), "bare.tsv")
    assert read_story({"r": bare}, sentences="auto").sentences.text.tolist() == expected["punctuation"]
    with pytest.raises(StoryError, match="Run 'r' has no sentence column"):
        read_story({"r": bare}, sentences="column")


def test_a_sentence_lasts_from_its_first_word_to_the_end_of_its_last(story):
    s = story.sentences
    for i, name in enumerate(s.ids):
        rows = np.flatnonzero(story.sentence == name)
        assert s.onset[i] == story.onset[rows[0]]
        assert s.onset[i] + s.duration[i] == pytest.approx(story.onset[rows[-1]] + story.duration[rows[-1]])
        assert s.n_words[i] == len(rows)
        assert s.text[i] == " ".join(story.text[rows])
    assert len(s) == len(set(s.ids.tolist())) == 9


def test_clitics_stand_close_to_their_word():
    words = ["Mary", "'s", "dog", "did", "n't", "see", "'tis", "they", "’re"]
    story = make_story({"r": words}, {"r": np.arange(9.0)}, {"r": np.ones(9)})
    assert story.join_words(0, 9)[0] == "Mary's dog didn't see 'tis they’re"


@given(
    st.lists(
        st.text("ab'sé.", min_size=1, max_size=4).filter(lambda w: any(map(str.isalpha, w))),
        min_size=1,
        max_size=12,
    ),
    st.data(),
)
def test_spans_are_where_the_words_stand(words, data):
    n = len(words)
    story = make_story({"r": words}, {"r": np.arange(float(n))}, {"r": np.ones(n)})
    first = data.draw(st.integers(0, n - 1))
    stop = data.draw(st.integers(first + 1, n))
    text, spans = story.join_words(first, stop)
    assert [text[a:b] for a, b in spans] == words[first:stop]
    assert (spans[1:, 0] >= spans[:-1, 1]).all()


def test_take_keeps_runs_in_the_storys_order(story):
    part = story.take(["run-3", "run-1"])
    assert part.runs == ("run-1", "run-3")
    assert set(part.left_out) == {"run-1", "run-3"}
    np.testing.assert_array_equal(part.ids, story.ids[story.run != "run-2"])


MISTAKES = {
    "column for word": ("duration\tonset\n1\t0\n", "has no column for word .word or text"),
    "column for onset": ("word\tduration\na\t1\n", "has no column for onset .*Its columns are: word, duration"),
    "column for duration": ("word\tonset\na\t1\n", "has no column for duration"),
    "number": ("word\tonset\tduration\na\t0\t1\nb\tone\t1\n", "row 3: 'one' in column 'onset' is not a number of seconds"),
    "order": ("word\tonset\tduration\na\t5\t1\nb\t2\t1\n", "Run 'r': word 'r/word-0001' begins before the word in front"),
    "length": ("word\tonset\tend\na\t5\t1\n", "Run 'r': word 'r/word-0000' ends before it begins"),
    "infinite": ("word\tonset\tduration\na\t0\t1\nb\tinf\t1\n", "row 3: 'inf' in column 'onset' is not a number of seconds"),
    "no words": ("word\tonset\tduration\n#\t0\t1\nsp\t1\t1\n", "Run 'r' has no words: its 2 labels are all empty, pauses or marks"),
    "no rows": ("word\tonset\tduration\n", "Run 'r' has no words"),
    "a row that ends early": ("word\tonset\tduration\na\t0\t1\nb\t1\n", "Run 'r'|row 3|cannot be read as a table"),
    "a word that is missing": ("onset\tduration\tword\n0\t1\ta\n1\t1\n", "row 3|cannot be read as a table"),
    "a row that is too long": ("word\tonset\tduration\na\t0\t1\nb\t1\t1\t9\n", "cannot be read as a table"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_every_mistake_is_one_sentence_that_names_the_place(written, mistake):
    content, message = MISTAKES[mistake]
    with pytest.raises(StoryError, match=message) as error:
        read_story({"r": written(content, "w.tsv")})
    assert "\n" not in str(error.value)
    assert "Traceback" not in str(error.value)


def test_a_tab_too_many_at_the_end_of_every_row_shifts_no_column(written):
    try:
        story = read_story({"r": written("onset\tduration\tword\n0\t1\ta\t\n1\t2\tb\t\n", "w.tsv")})
    except StoryError:
        return
    assert story.text.tolist() == ["a", "b"]
    np.testing.assert_allclose(story.onset, [0, 1])


def test_missing_files_and_wrong_choices_are_named(tmp_path, written):
    with pytest.raises(StoryError, match="does not exist"):
        read_story({"r": tmp_path / "absent.tsv"})
    with pytest.raises(StoryError, match="No story files"):
        read_story({})
    with pytest.raises(StoryError, match="not by 'commas'"):
        read_story({"r": written("word\tonset\tduration\na\t0\t1\n", "w.tsv")}, sentences="commas")


def test_the_columns_of_a_story_are_checked():
    good = {
        "name": "s", "ids": np.array(["a", "b", "c"]), "text": np.array(["x", "y", "z"]), "onset": np.arange(3.0), "duration": np.ones(3),
        "run": np.array(["1", "1", "2"]), "sentence": np.array(["p", "p", "q"]), "before": np.array(["", " ", ""]),
    }  # fmt: skip
    Story(**good)
    for change, message in (
        ({"ids": np.array(["a", "a", "c"])}, "two words have the same id"),
        ({"run": np.array(["1", "2", "1"])}, "words of run '1' are not contiguous"),
        ({"sentence": np.array(["p", "q", "p"])}, "words of a sentence are not contiguous"),
        ({"onset": np.array([1.0, 0.0, 0.0])}, "word 'b' begins before the word in front"),
        ({"onset": np.arange(2.0)}, "onset has 2 rows, ids 3"),
        ({"duration": np.array([1.0, -1.0, 1.0])}, "word 'b' ends before it begins"),
    ):
        with pytest.raises(StoryError, match=message):
            Story(**{**good, **change})


def test_the_little_prince_has_15453_labels_in_2103_pause_groups(shared_data):
    folder = shared_data / "lpp" / "annotation" / "EN"
    if not folder.is_dir():
        pytest.skip(f"the Little Prince is absent: no folder {folder}")
    files = {f"section{i}": folder / f"lppEN_section{i}.TextGrid" for i in range(1, 10)}
    story = read_story(files)
    assert len(story) == 15_453 - 24  # labels that are marks belong to their words
    assert story.remarks == ("24 marks of punctuation were attached to their words.",)
    assert len(story.sentences) == 2_103
    assert sum(story.left_out.values()) == 2_159
    assert (story.sentences.run == "section1").sum() == 185
    assert story.sentences.ids[0] == "section1/sentence-000"


def test_the_french_little_prince_is_read(shared_data):
    folder = shared_data / "lpp" / "annotation" / "FR"
    if not folder.is_dir():
        pytest.skip(f"the French Little Prince is absent: no folder {folder}")
    story = read_story({f"section{i}": folder / f"lppFR_section{i}.TextGrid" for i in range(1, 10)})
    assert len(story.runs) == 9
    assert any("é" in str(w) for w in story.text)


def test_alice_breaks_off_and_has_2103_words_when_that_is_accepted(shared_data):
    path = shared_data / "alice" / "alice_stim_shared" / "DownTheRabbitHoleFinal_exp120_pad_1.TextGrid"
    if not path.is_file():
        pytest.skip(f"Alice is absent: no file {path}")
    with pytest.raises(StoryError, match="breaks off after interval 2395 of 2423"):
        read_story({"chapter1": path})
    story = read_story({"chapter1": path}, accept_truncated=True)
    assert len(story) == 2_103
    assert story.onset[0] == pytest.approx(20.05891632653599)


def _table(words, step=0.4, duration=0.3):
    rows = [f"{w}\t{step * i:.3f}\t{duration}" for i, w in enumerate(words)]
    return "\n".join(["word\tonset\tduration", *rows]) + "\n"


def test_the_tier_of_words_is_read_wherever_it_stands(written):
    phones = [("f", 0.1 * i, 0.1 * i + 0.1) for i in range(35)]
    for names in (
        ("phones", "words"),
        ("words", "phones"),
        ("Jo - phones", "Jo - words"),
        ("MAU", "ORT-MAU words"),
    ):
        tiers = {name: INTERVALS if "words" in name else phones for name in names}
        story = read_story({"r": written(long_textgrid(tiers))})
        assert story.text.tolist() == WORDS
        assert story.tiers == {"r": next(name for name in names if "words" in name)}
    with pytest.raises(
        StoryError, match=r"of which none is called words: 'a', 'b'\. Name the tier of words with story.tier"
    ):
        read_story({"r": written(long_textgrid({"a": INTERVALS, "b": INTERVALS}))})


def test_mended_overlaps_are_remarks_of_the_story(written):
    overlapping = [("a", 0.0, 1.0004), ("b", 1.0, 2.0)]
    story = read_story({"r": written(long_textgrid({"words": overlapping}))})
    assert len(story.remarks) == 1
    assert "1 intervals of tier 'words' overlapped the next by up to 0.4 ms" in story.remarks[0]
    assert story.take(["r"]).remarks == story.remarks


@pytest.mark.parametrize(
    "mark", ["<eps>", "spn", "sil", "<unk>", "{SL}", "[noise]", "<p:>", "SIL", "[laughter]"]
)
def test_aligners_marks_are_pauses_and_not_words(written, mark):
    words = [mark if i % 8 == 7 else f"w{i}" for i in range(480)]
    story = read_story({"r": written(_table(words), "w.tsv")})
    assert (len(story), story.left_out) == (420, {"r": 60})
    assert len(story.sentences) == 60
    kept = read_story({"r": written(_table(words), "w.tsv")}, pauses=["#"])
    assert len(kept) == 480


def test_noise_that_is_left_out_is_a_remark_and_silence_is_not(written):
    assert read_story({"r": written(_table(["a", "<eps>", "b"]), "w.tsv")}).remarks == ()
    noisy = read_story({"r": written(_table(["a", "<unk>", "b", "<unk>", "[noise]"]), "w.tsv")})
    assert noisy.remarks == (
        "Labels read as pauses or noise, not as words (story.pauses): '<unk>' 2 times, '[noise]' 1 times.",
    )


def test_a_run_that_is_one_sentence_is_a_remark(written):
    story = read_story({"r": written(_table([f"w{i}" for i in range(480)]), "w.tsv")})
    assert len(story.sentences) == 1
    assert story.remarks[0].startswith("The 480 words of every run are one single sentence")


def test_words_of_onsets_only_are_a_remark(written):
    story = read_story({"r": written(_table(["a", "b", "c."], duration=0), "w.tsv")})
    assert story.remarks[0].startswith("All words last 0 s: they are impulses")


def test_marks_of_their_own_are_written_at_their_words(written):
    tokens = [
        "He",
        "ran",
        ",",
        "then",
        "stopped",
        ".",
        "“",
        "Why",
        "?",
        "”",
        "she",
        "asked",
        ".",
        '"',
        "No",
        ".",
        '"',
        "He",
        "left",
        ".",
    ]
    story = read_story({"r": written(_table(tokens), "w.tsv")})
    assert story.sentences.text.tolist() == [
        "He ran, then stopped.",
        "“Why?” she asked.",
        '"No."',
        "He left.",
    ]
    assert len(story) == 10
    assert story.remarks == ("10 marks of punctuation were attached to their words.",)
    assert story.onset.tolist() == pytest.approx([0.0, 0.4, 1.2, 1.6, 2.8, 4.0, 4.4, 5.6, 6.8, 7.2])


@pytest.mark.parametrize(
    ("tokens", "text"),
    [
        ("我 六岁 的 时候 ， 他 走 了 。", "我六岁的时候，他走了。"),
        ("彼 は 言っ た 。", "彼は言った。"),
        ("j' ai vu l' homme dans la rue et qu' il", "j'ai vu l'homme dans la rue et qu'il"),
        ("l' amico dell' uomo che non è più di là", "l'amico dell'uomo che non è più di là"),
        ("I do n't know what it 's for", "I don't know what it's for"),
        ("ฉัน ไป โรงเรียน", "ฉันไปโรงเรียน"),
    ],
)
def test_words_are_joined_as_their_language_writes_them(written, tokens, text):
    path = written(_table(tokens.split()), "w.tsv")
    story = read_story({"r": path})
    assert story.join_words(0, len(story))[0] == text
    made = make_story(
        {"r": tokens.split()}, {"r": story_times(tokens)}, {"r": np.full(len(tokens.split()), 0.1)}
    )
    assert made.join_words(0, len(made))[0] == text


def story_times(tokens):
    return np.arange(float(len(tokens.split())))


def test_the_language_can_be_said(written):
    path = written(_table(["ga", "'s", "avonds"]), "w.tsv")
    assert read_story({"r": path}, language="nl").join_words(0, 3)[0] == "ga 's avonds"
    assert read_story({"r": path}, language="en").join_words(0, 3)[0] == "ga's avonds"


@pytest.mark.parametrize(
    ("text", "n"),
    [
        ("Mr. Hale met Dr. J. R. Voss at 9 a.m. in the U.S. embassy. He left.", 2),
        ("Mrs. Poole lives on St. James St. near No. 5, i.e. there. Prof. Lee knows.", 2),
        ("Dr. Müller kam z.B. am 3. Oktober nicht in die Stadt und das ist es. Er ging.", 2),
        ("وہ گیا۔ وہ آیا۔", 2),
        ("वह गया। वह आया।", 2),
        ("هل ذهب؟ نعم.", 2),
    ],
)
def test_titles_initials_and_abbreviations_do_not_end_sentences(written, text, n):
    story = read_story({"r": written(_table(text.split()), "w.tsv")})
    assert len(story.sentences) == n
    assert len(story) == len(text.split())


def test_paths_may_be_strings(written):
    path = written(_table(["a", "b."]), "w.tsv")
    assert read_story({"r": str(path)}).text.tolist() == ["a", "b."]


def test_the_demo_keeps_its_sentences():
    from langcortex.simulation.demo import _story_file

    story = read_story({f"run-{i}": _story_file(f"run-{i}") for i in range(1, 7)}, name="demo")
    assert (len(story), len(story.sentences), story.remarks) == (2284, 172, ())
