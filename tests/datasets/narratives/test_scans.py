"""Narratives: the sound of a scan is read from its events."""

from __future__ import annotations

from pathlib import Path

from langcortex.datasets.narratives.scans import PlayedSound, read_events

EVENTS = (
    "onset\tduration\ttrial_type\tstim_file\n"
    "4.5\t22.0\tmusic\tslumlordreach_audio.wav\n29.5\t903.0\tstory\tslumlordreach_audio.wav\n"
    "944.5\t22.0\tmusic\tslumlordreach_audio.wav\n969.5\t825.0\tstory\tslumlordreach_audio.wav\n"
)


def test_music_ends_where_the_story_begins(tmp_path: Path) -> None:
    path = tmp_path / "events.tsv"
    path.write_text(EVENTS, encoding="utf-8")
    assert read_events(path) == PlayedSound("slumlordreach", 4.5, ((0.0, 25.0), (940.0, 965.0)))
