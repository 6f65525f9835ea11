"""Sound power: of tones whose loudness is known, in wav files of every usual kind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.io import wavfile

from langcortex.errors import SettingsError, StoryError
from langcortex.features.controls.registry import control
from langcortex.features.controls.sound import read_envelope, sound_power
from langcortex.stimulus.story import Story, make_story

RATE = 16000


def steps(levels: list[float], rate: int = RATE) -> np.ndarray:
    """A square wave, one second at each level: its root mean square is the level itself."""
    sign = np.where(np.arange(rate) % 2 == 0, 1.0, -1.0)
    return np.concatenate([level * sign for level in levels])


@pytest.fixture
def story() -> Story:
    onsets = np.array([0.0, 1.25, 1.5, 2.5])
    return make_story(
        {"r": ["one", "two", "three.", "four"]}, {"r": onsets}, {"r": np.array([1.0, 0.25, 1.0, 0.0])}
    )


@pytest.fixture
def wav(tmp_path: Path) -> Path:
    path = tmp_path / "r.wav"
    wavfile.write(path, RATE, steps([0.5, 0.05, 0.0]).astype(np.float32))
    return path


def test_a_word_is_as_loud_as_the_sound_while_it_lasts(story: Story, wav: Path) -> None:
    table = sound_power(story, files=str(wav))
    half, twentieth = 20 * np.log10(0.5), 20 * np.log10(0.05)
    np.testing.assert_allclose(table.values[:, 0], [half, twentieth, (twentieth - 100) / 2, -100], atol=1e-4)
    assert table.ids.tolist() == story.ids.tolist()
    assert table.combine == "mean"


def test_the_scale_can_be_the_root_mean_square_itself_and_the_floor_another(story: Story, wav: Path) -> None:
    rms = sound_power(story, files=str(wav), scale="rms").values[:, 0]
    np.testing.assert_allclose(rms, [0.5, 0.05, 0.025, 0.0], atol=1e-7)
    assert sound_power(story, files=str(wav), floor=-60.0).values[3, 0] == -60.0


@pytest.mark.parametrize(
    ("kind", "scale", "middle"),
    [(np.int16, 2**15, 0), (np.int32, 2**31, 0), (np.uint8, 2**7, 128), (np.float32, 1, 0)],
)
def test_full_scale_is_one_whatever_the_samples_are(
    tmp_path: Path, kind: type, scale: int, middle: int
) -> None:
    path = tmp_path / "x.wav"
    wavfile.write(path, RATE, (steps([0.5]) * scale + middle).astype(kind))
    sound = read_envelope(path)
    np.testing.assert_allclose(sound.rms, 0.5)
    np.testing.assert_allclose(sound.onset, np.arange(100) * 0.01)


def test_channels_are_averaged_in_power(tmp_path: Path) -> None:
    path = tmp_path / "x.wav"
    wavfile.write(path, RATE, np.stack([steps([0.4]), steps([0.0])], axis=1).astype(np.float32))
    np.testing.assert_allclose(read_envelope(path).rms, 0.4 / np.sqrt(2), rtol=1e-6)


@pytest.mark.parametrize("rate", [22050, 44100, 11025])
def test_windows_keep_time_where_they_are_no_whole_number_of_samples(tmp_path: Path, rate: int) -> None:
    path = tmp_path / "x.wav"
    wavfile.write(path, rate, steps([0.1] * 12 + [0.8], rate).astype(np.float32))
    sound = read_envelope(path)
    assert len(sound.rms) == 1300
    assert np.abs(sound.onset - np.arange(1300) * 0.01).max() < 1 / rate
    np.testing.assert_allclose(sound.rms[:1199], 0.1, rtol=1e-5)
    np.testing.assert_allclose(sound.rms[1201:], 0.8, rtol=1e-5)


def test_a_last_window_that_is_not_full_is_measured_over_what_there_is(tmp_path: Path) -> None:
    path = tmp_path / "x.wav"
    wavfile.write(path, RATE, steps([0.5])[: RATE // 2 + 40].astype(np.float32))
    sound = read_envelope(path)
    assert len(sound.rms) == 51
    assert sound.rms[-1] == pytest.approx(0.5)


def test_files_come_from_a_pattern_a_table_or_the_corpus(story: Story, wav: Path) -> None:
    class Corpus:
        def wav(self, run: str) -> Path:
            return wav.parent / f"{run}.wav"

    options = [{"files": "{run}.wav"}, {"files": {"r": "r.wav"}}]
    tables = [control("sound_power", story, {"sound_power": o}, base=wav.parent) for o in options]
    tables.append(control("sound_power", story, corpus=Corpus()))
    for table in tables:
        np.testing.assert_array_equal(table.values, tables[0].values)
    with pytest.raises(
        SettingsError, match=r"set features\.options\.sound_power\.files, e\.g\. \"stimuli/\{run\}\.wav\""
    ):
        control("sound_power", story)
    with pytest.raises(SettingsError, match=r"sound_power has no file for run 'r'\. It has: section1\."):
        sound_power(story, files={"section1": "r.wav"}, base=wav.parent)
    with pytest.raises(SettingsError, match="on the scale db or rms, not 'loud'"):
        sound_power(story, files=str(wav), scale="loud")


def test_a_sound_that_ends_before_its_words_is_not_theirs(story: Story, tmp_path: Path) -> None:
    path = tmp_path / "r.wav"
    wavfile.write(path, RATE, steps([0.5]).astype(np.float32))
    with pytest.raises(
        StoryError,
        match=r"r\.wav lasts 1\.00 s, but 'r/word-0001' is heard at 1\.25 s\. Is it the sound of run 'r'",
    ):
        sound_power(story, files=str(path))


def test_broken_files_are_errors_in_one_sentence(wav: Path, tmp_path: Path) -> None:
    half = tmp_path / "half.wav"
    half.write_bytes(wav.read_bytes()[:9000])
    with pytest.raises(StoryError, match=r"half\.wav breaks off: it has fewer samples than its header says"):
        read_envelope(half)
    for n in (10, 30, 45):
        half.write_bytes(wav.read_bytes()[:n])
        with pytest.raises(StoryError, match=r"half\.wav "):
            read_envelope(half)
    half.write_bytes(b"ID3\x04 this is an mp3" * 40)
    with pytest.raises(StoryError, match="cannot be read as a wav file"):
        read_envelope(half)
    wavfile.write(half, RATE, np.zeros(0, dtype=np.int16))
    with pytest.raises(StoryError, match="has no samples"):
        read_envelope(half)
    with pytest.raises(StoryError, match="does not exist"):
        read_envelope(tmp_path / "none.wav")
    with pytest.raises(StoryError, match=r"windows of 1e-05 s do not fit\. Change step\."):
        read_envelope(wav, step=1e-5)
