"""TextGrids: every way Praat writes them is read, damage is one sentence, and no text makes the reader crash."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from langcortex.errors import StoryError
from langcortex.stimulus.textgrid import read_interval_tiers, read_textgrid

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
    with pytest.raises(StoryError, match=r"no interval tier called 'words'\. It has: phone"):
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
