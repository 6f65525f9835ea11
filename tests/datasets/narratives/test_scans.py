"""Narratives: the sound of a scan is read from its events."""

from __future__ import annotations

from pathlib import Path

import pytest

from langcortex.datasets.narratives.scans import PlayedSound, read_events
from langcortex.errors import RecordingError

EVENTS = (
    "onset\tduration\ttrial_type\tstim_file\n"
    "4.5\t22.0\tmusic\tslumlordreach_audio.wav\n29.5\t903.0\tstory\tslumlordreach_audio.wav\n"
    "944.5\t22.0\tmusic\tslumlordreach_audio.wav\n969.5\t825.0\tstory\tslumlordreach_audio.wav\n"
)


def test_music_ends_where_the_story_begins(tmp_path: Path) -> None:
    path = tmp_path / "events.tsv"
    path.write_text(EVENTS, encoding="utf-8")
    assert read_events(path) == PlayedSound("slumlordreach", 4.5, ((0.0, 25.0), (940.0, 965.0)))


@pytest.mark.parametrize("onset", ["nan", "-3", "1e9", "inf", "soon"])
def test_a_time_that_no_scan_has_is_an_error(tmp_path: Path, onset: str) -> None:
    path = tmp_path / "sub-001_task-pieman_events.tsv"
    path.write_text(f"onset\tduration\ttrial_type\tstim_file\n{onset}\t420\tstory\tpieman_audio.wav\n")
    with pytest.raises(RecordingError, match=r"is no time (in seconds|within a scan)"):
        read_events(path)


ONSETS = {"pieman": (0.0, 15.0), "tunnel": (3.0, 0.0), "black": (12.0, 0.0), "notthefallintact": (4.5, 25.0)}


def test_the_published_events_of_many_subjects_are_read(shared_data: Path) -> None:
    """Every task but schema is one story of one sound; single subjects have other onsets, so the file counts."""
    root = shared_data / "real2" / "narratives_events"
    paths = sorted(root.rglob("*_events.tsv"))
    if not paths:
        pytest.skip(f"the events {root} are absent")
    onsets: dict[str, set[float]] = {}
    for path in paths:
        task = path.name.split("_task-")[1].split("_")[0]
        if task == "schema":
            with pytest.raises(
                RecordingError, match=r"must be one story from one sound file.*data\.options\.tasks"
            ):
                read_events(path)
            continue
        sound = read_events(path)
        assert sound.name.startswith(task)
        onsets.setdefault(task, set()).add(sound.onset + sound.lead)
        if task in ONSETS:
            assert (sound.onset, sound.lead) == ONSETS[task]
    assert len(onsets) >= 16
    assert onsets["prettymouth"] == {13.5, 15.0, 21.0}
    assert onsets["slumlordreach"] == {29.5}
