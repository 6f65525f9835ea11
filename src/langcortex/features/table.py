"""Feature spaces: named tables with one row per unit of a story and one column per feature."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from langcortex.brain.timing import impulse_durations
from langcortex.errors import AlignmentError
from langcortex.stimulus.story import Story

COMBINE = ("mean", "last", "sum", "duration")


@dataclass(frozen=True, eq=False)
class Features:
    """A feature space: one row per unit of a story, one column per feature.

    Attributes
    ----------
    name : of the feature space, e.g. ``"llama-3.1-8b/layer-16"``
    ids : (n_rows,) the unit that each row describes, e.g. ``"section1/word-0042"``
    onset, duration : (n_rows,) when the unit is heard and for how long, in seconds
    run : (n_rows,) the run in which it is heard
    values : (n_rows, n_columns)
    combine : how rows merge into a longer unit: "mean", "last", "sum" (counts), or "duration" (a mean weighted by
        the rows' durations)
    """

    name: str
    ids: np.ndarray
    onset: np.ndarray
    duration: np.ndarray
    run: np.ndarray
    values: np.ndarray
    combine: str = "mean"

    def __post_init__(self) -> None:
        if self.combine not in COMBINE:
            raise ValueError(f"rows combine by {', '.join(COMBINE)}, not {self.combine!r}")
        if self.values.ndim != 2 or not (
            len(self.ids) == len(self.onset) == len(self.duration) == len(self.run) == len(self.values)
        ):
            raise ValueError(f"features '{self.name}': {len(self.ids)} ids, values {self.values.shape}")
        undefined = ~np.isfinite(self.values).all(axis=1)
        if undefined.any():
            raise AlignmentError(
                f"'{self.name}' has NaN or infinite values in {int(undefined.sum())} of {len(undefined)} rows, first '{self.ids[undefined][0]}'."
            )

    def find_rows(self, ids: np.ndarray) -> np.ndarray:
        """Return the row numbers of units by id.

        Parameters
        ----------
        ids : (n_units,)

        Returns
        -------
        (n_units,) row numbers

        Raises
        ------
        AlignmentError : a unit has no row
        """
        where = {name: i for i, name in enumerate(self.ids.tolist())}
        missing = [name for name in ids.tolist() if name not in where]
        if missing:
            raise AlignmentError(
                f"'{self.name}' has no row for {len(missing)} of {len(ids)} units, first '{missing[0]}'. Extract features "
                "for every unit, or leave these out of the recording too: rows are matched by id, never by position."
            )
        return np.array([where[name] for name in ids.tolist()], dtype=np.intp)

    def to_sentences(self, story: Story) -> Features:
        """Merge word rows into one row per sentence, by `combine`; sentence rows are only sorted, by id."""
        sentences = story.sentences
        if np.isin(sentences.ids, self.ids).any():
            values = np.asarray(self.values[self.find_rows(sentences.ids)])
        else:
            words = self.values[self.find_rows(story.ids)]
            edges = np.concatenate([[0], np.cumsum(sentences.n_words)])
            if self.combine == "last":
                values = words[edges[1:] - 1]
            else:
                weight = self._word_weights(story)
                values = np.add.reduceat(words.astype(np.float64) * weight[:, None], edges[:-1], axis=0)
                if self.combine != "sum":
                    values /= np.add.reduceat(weight, edges[:-1])[:, None]
                values = values.astype(self.values.dtype)
        return Features(
            self.name, sentences.ids, sentences.onset, sentences.duration, sentences.run, values, self.combine
        )

    def _word_weights(self, story: Story) -> np.ndarray:
        """Return the weight of each word in its sentence: its duration, or 1; see `impulse_durations`."""
        if self.combine != "duration":
            return np.ones(len(story))
        s = story.sentences
        edges = np.concatenate([[0], np.cumsum(s.n_words)])
        silent = np.add.reduceat(story.duration, edges[:-1]) <= 0
        if silent.any() and not silent.all():
            raise AlignmentError(
                f"'{self.name}': the words of '{s.ids[silent][0]}' last 0 s, so durations cannot weigh them. Use pool = 'mean'."
            )
        return impulse_durations(story.duration)
