"""Alice: 27 people who listened to twelve minutes of "Alice in Wonderland", six regions each (Brennan et al. 2016).

The folder has ``alice_data_shared`` (responses, movement, predictors) and ``alice_stim_shared`` (the words).
Its README says: 362 scans × six regions (spheres of 6 or 10 mm), columns LATL RATL LPTL LIPL LPreM LIFG, "the
ten initial fMRI volumes were discarded". So the acquisition of row j began at second 2 · (j + 10) of the sound
file, on whose clock the words are. The published predictors agree: word rate, computed from the words and
sampled at the beginning of each scan, correlates with the published one at r > .95, and less when shifted by a scan.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from langcortex.datasets.corpus import CorpusOnDisk, Reading, RunFile, select_subjects
from langcortex.errors import RecordingError, SettingsError, StoryError
from langcortex.paths import natural_key, require_file
from langcortex.stimulus.story import Story, read_story

REGIONS = ("LATL", "RATL", "LPTL", "LIPL", "LPreM", "LIFG")
SCANS = 362
DISCARDED = 10  # scans removed from the recordings, but not from the tables of movement
TR = 2.0
SMOOTHING = (6, 10)
EXCLUDED = {"33": "its tables have the same number throughout"}
TEXTGRID = "DownTheRabbitHoleFinal_exp120_pad_1.TextGrid"
LAST_WORD = 735.0  # seconds; the published TextGrid breaks off after the word that ends here
_MOVEMENT = ("x", "y", "z", "pitch", "roll", "yaw")


def corpus(path: Path, reading: Reading, smoothing: int = 6) -> AliceCorpus:
    """Open the corpus.

    Parameters
    ----------
    path : the folder of alice_data_shared and alice_stim_shared
    reading : how the study reads recordings
    smoothing : 6 or 10, the radius in mm of the spheres over which responses were averaged

    Raises
    ------
    SettingsError : there is no such radius
    """
    if smoothing not in SMOOTHING:
        raise SettingsError(
            f"Alice was published for spheres of 6 and 10 mm; data.options.smoothing cannot be {smoothing}."
        )
    reading = replace(
        reading,
        columns=reading.columns or REGIONS,
        regions=reading.regions or {name: (name,) for name in reading.columns or REGIONS},
    )
    return AliceCorpus(path, reading, smoothing)


@dataclass(frozen=True, eq=False)
class AliceCorpus(CorpusOnDisk):
    """The corpus; its one run is called "alice".

    Attributes
    ----------
    path : the folder of alice_data_shared and alice_stim_shared
    reading : how the study reads recordings
    smoothing : the radius of the spheres in mm
    """

    path: Path
    reading: Reading
    smoothing: int = 6

    def subjects(self) -> list[str]:
        """List the subjects, e.g. "18"; those of `EXCLUDED` only when the study names them."""
        subjects = sorted(self._tables("-timecourses.txt", f"{self.smoothing}mm"), key=natural_key)
        if self.reading.subjects is None:
            subjects = [name for name in subjects if name not in EXCLUDED]
        return select_subjects(self.reading.subjects, subjects, self._data / f"{self.smoothing}mm")

    def remarks(self) -> list[str]:
        """List the excluded subjects, with reasons."""
        return [f"Subject '{name}' is left out: {reason}." for name, reason in EXCLUDED.items()]

    def files(self, subject: str) -> dict[str, RunFile]:
        """Find the one run of a subject: (362 scans × 6 regions), 2 s apart, from second 20 of the sound file."""
        if subject in EXCLUDED:
            raise RecordingError(
                f"Subject '{subject}' of Alice cannot be used: {EXCLUDED[subject]}. Leave it out of recording.subjects."
            )
        path = self._table(subject, "-timecourses.txt", f"{self.smoothing}mm")
        return {"alice": RunFile(path, -DISCARDED * TR, TR, reference=0.0, scans=SCANS)}

    def story(self) -> Story:
        """Read the words of the TextGrid, whose published file breaks off in the middle of an interval.

        Raises
        ------
        StoryError : the file breaks off earlier than the published one does
        """
        return self._story

    @cached_property
    def _story(self) -> Story:
        path = self.path / "alice_stim_shared" / TEXTGRID
        story = read_story(
            {"alice": path},
            name="alice",
            sentences=self.reading.sentences,
            accept_truncated=True,
            pauses=self.reading.pauses,
            language=self.reading.language or "en",
        )
        end = float(story.onset[-1] + story.duration[-1])
        if end < LAST_WORD:
            raise StoryError(
                f"{path} breaks off after {end:.0f} s; the published file has words until {LAST_WORD:.0f} s. Fetch it again."
            )
        return story

    def predictors(self, subject: str) -> dict[str, np.ndarray]:
        """Read the published predictors of one subject.

        Returns
        -------
        "word_rate" and "sound_power" → (362,) float64, one value per scan, convolved with a haemodynamic response
        """
        endings = {"word_rate": "-rate.txt", "sound_power": "-sndpwr.txt"}
        return {name: self._read_table(subject, ending, SCANS, 1)[:, 0] for name, ending in endings.items()}

    def movement(self, subject: str) -> np.ndarray:
        """Read the head movement of one subject: (362, 6), millimetres along x, y, z, then radians about them.

        The published tables include the ten discarded scans; they are removed here.
        """
        ending = next((e for e in self._endings(subject) if e.startswith("-rp_")), "-rp_….txt")
        return self._read_table(subject, ending, SCANS + DISCARDED, len(_MOVEMENT))[DISCARDED:]

    def citation(self) -> str:
        """Return what to cite."""
        return (
            "Brennan, J. R., Stabler, E. P., Van Wagenen, S. E., Luh, W.-M., & Hale, J. T. (2016). Abstract linguistic "
            "structure correlates with temporal activity during naturalistic comprehension. Brain and Language, "
            "157-158, 81–94. doi:10.1016/j.bandl.2016.04.008"
        )

    def licence(self) -> str:
        """Return the licence of the data."""
        return "Creative Commons Attribution 4.0 International (CC BY 4.0)."

    @property
    def _data(self) -> Path:
        return self.path / "alice_data_shared"

    @cached_property
    def _tree(self) -> Mapping[str, tuple[str, ...]]:
        """List the folders once: folder → names."""
        if not self._data.is_dir():
            raise RecordingError(
                f"{self.path} has no folder alice_data_shared. Set data.path to the folder that contains it."
            )
        folders = {"": self._data} | {f"{mm}mm": self._data / f"{mm}mm" for mm in SMOOTHING}
        return {
            name: tuple(sorted(p.name for p in folder.iterdir())) if folder.is_dir() else ()
            for name, folder in folders.items()
        }

    def _tables(self, ending: str, folder: str) -> list[str]:
        return [
            name[1 : -len(ending)]
            for name in self._tree[folder]
            if name.startswith("s") and name.endswith(ending)
        ]

    def _endings(self, subject: str) -> list[str]:
        return [name[len(subject) + 1 :] for name in self._tree[""] if name.startswith(f"s{subject}-")]

    def _table(self, subject: str, ending: str, folder: str = "") -> Path:
        name = f"s{subject}{ending}"
        if name not in self._tree[folder]:
            raise RecordingError(
                f"Subject '{subject}' of Alice has no file {self._data / folder / name}. Check recording.subjects, or fetch it."
            )
        return self._data / folder / name

    def _read_table(self, subject: str, ending: str, rows: int, columns: int) -> np.ndarray:
        path = require_file(self._table(subject, ending), RecordingError, "table")
        try:
            values: np.ndarray = np.loadtxt(path, dtype=np.float64, ndmin=2)
        except (ValueError, OSError) as error:
            raise RecordingError(f"{path} cannot be read as numbers ({error}). Fetch it again.") from error
        if values.shape != (rows, columns):
            raise RecordingError(
                f"{path} has {values.shape[0]} rows × {values.shape[1]} columns, but {rows} × {columns} were published. Fetch it again."
            )
        return values
