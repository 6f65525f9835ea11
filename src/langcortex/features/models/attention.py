"""Attention maps from word to word, a sentence and a head at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from langcortex.errors import AlignmentError
from langcortex.features.models.tokens import Window
from langcortex.features.table import Features
from langcortex.stimulus.story import Story


@dataclass(frozen=True, eq=False)
class AttentionMaps:
    """How much each word of a sentence attends to each other one: a row a cell, a column a head.

    Attention to a word is the sum over its tokens; of a word, the mean over its tokens. For every word, its cells,
    the mass on the beginning-of-text token and the mass outside sum to 1.

    Attributes
    ----------
    name : e.g. ``"llama/attention-07"``
    sentence, row, column : (n_cells,) ids of the sentence, the attending word and the attended one
    values : (n_cells, n_heads)
    words : (n_words,) ids
    bos, outside : (n_words, n_heads) mass of each word on the beginning-of-text token; on everything else, such as a
        prefix, earlier sentences of a running context, or tokens of no word
    """

    name: str
    sentence: np.ndarray
    row: np.ndarray
    column: np.ndarray
    values: np.ndarray
    words: np.ndarray
    bos: np.ndarray
    outside: np.ndarray

    @cached_property
    def _place(self) -> dict[str, int]:
        return {str(name): i for i, name in enumerate(self.words)}

    def maps_of_sentence(self, sentence: str) -> np.ndarray:
        """Give the maps of one sentence: (n_heads, n_words, n_words), attending words down; NaN where cells were taken out."""
        here = np.flatnonzero(self.sentence == sentence)
        if not len(here):
            raise AlignmentError(f"'{self.name}' has no sentence '{sentence}'.")
        places = [np.array([self._place[str(w)] for w in ids[here]]) for ids in (self.row, self.column)]
        first = min(int(p.min()) for p in places)
        n = max(int(p.max()) for p in places) - first + 1
        out = np.full((self.values.shape[1], n, n), np.nan, dtype=self.values.dtype)
        out[:, places[0] - first, places[1] - first] = self.values[here].T
        return out

    def lower(self, diagonal: bool = True, renormalise: bool = False) -> AttentionMaps:
        """Keep the cells whose attended word does not come after the attending one.

        Parameters
        ----------
        diagonal : keep a word's attention to itself
        renormalise : divide by what the kept cells of a word sum to, so that they sum to 1; NaN where that is 0
        """
        row = np.array([self._place[str(w)] for w in self.row], dtype=np.int64)
        column = np.array([self._place[str(w)] for w in self.column], dtype=np.int64)
        keep = column <= row if diagonal else column < row
        values = self.values[keep]
        if renormalise:
            total = np.zeros((len(self.words), values.shape[1]))
            np.add.at(total, row[keep], values)
            with np.errstate(invalid="ignore", divide="ignore"):
                values = np.where(total[row[keep]] > 0, values / total[row[keep]], np.nan).astype(
                    values.dtype
                )
        cut = {k: getattr(self, k)[keep] for k in ("sentence", "row", "column")}
        return replace(self, values=values, **cut)

    def features(self, story: Story) -> Features:
        """Make a table of the cells: ids ``"{row}<{column}"``, times of the attending word, a column a head."""
        where = {str(name): i for i, name in enumerate(story.ids)}
        rows = np.array([where[str(w)] for w in self.row], dtype=np.int64)
        ids = np.array([f"{a}<{b}" for a, b in zip(self.row, self.column, strict=True)])
        return Features(self.name, ids, story.onset[rows], story.duration[rows], story.run[rows], self.values)


def cell_labels(story: Story) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Name every cell of every sentence's square, row by row: ids of sentence, attending and attended word."""
    sentence, row, column = [], [], []
    edges = np.concatenate([[0], np.cumsum(story.sentences.n_words)])
    for i, name in enumerate(story.sentences.ids):
        words = story.ids[edges[i] : edges[i + 1]]
        sentence.append(np.full(len(words) ** 2, name))
        row.append(np.repeat(words, len(words)))
        column.append(np.tile(words, len(words)))
    return np.concatenate(sentence), np.concatenate(row), np.concatenate(column)


class MapPlan:
    """Where the cells of one batch lie, worked out once and used for every layer.

    Parameters
    ----------
    windows : the texts of the batch
    n_tokens : (n_words,) of each word of the run
    sentence : (n_words,) number of each word's sentence, from 0
    bos : every text begins with a beginning-of-text token
    """

    def __init__(
        self, windows: Sequence[Window], n_tokens: np.ndarray, sentence: np.ndarray, bos: bool
    ) -> None:
        size = np.bincount(sentence)
        self.begin = np.concatenate([[0], np.cumsum(size**2)])
        self.n_cells = int(self.begin[-1])
        self.size, self.bos = size, bos
        first = np.concatenate([[0], np.cumsum(size)])
        self.parts = []
        for text, w in enumerate(windows):
            share = 1.0 / np.bincount(w.pairs[:, 1], minlength=1)[w.pairs[:, 1]]
            of = sentence[w.pairs[:, 0]]
            for s in np.unique(of[w.new]).tolist():
                here, rows = of == s, (of == s) & w.new
                places = np.unique(w.pairs[rows, 1])
                attending = np.zeros((size[s], len(places)), dtype=np.float32)
                attending[w.pairs[rows, 0] - first[s], np.searchsorted(places, w.pairs[rows, 1])] = (
                    1.0 / n_tokens[w.pairs[rows, 0]]
                )
                attended = np.zeros((len(w.ids), size[s]), dtype=np.float32)
                attended[w.pairs[here, 1], w.pairs[here, 0] - first[s]] = share[here]
                self.parts.append((text, int(s), int(first[s]), places, attending, attended))

    def pool(self, weights: Any, cells: np.ndarray, bos: np.ndarray, outside: np.ndarray) -> None:
        """Add one layer's maps (texts, heads, tokens, tokens) into the run's cells."""
        import torch

        for text, s, first, places, attending, attended in self.parts:
            n = int(self.size[s])
            at = torch.as_tensor(places, device=weights.device)
            rows = weights[text][:, at, : len(attended)].float()
            by_word = torch.as_tensor(attending, device=weights.device)
            words = by_word @ (rows @ torch.as_tensor(attended, device=weights.device))
            begin = (
                by_word @ rows[:, :, 0].T if self.bos else torch.zeros((n, rows.shape[0]), device=rows.device)
            )
            left = by_word.sum(dim=1)[:, None] - words.sum(dim=2).T - begin
            block = slice(int(self.begin[s]), int(self.begin[s + 1]))
            cells[block] += words.permute(1, 2, 0).reshape(n * n, -1).cpu().numpy()
            bos[first : first + n] += begin.cpu().numpy()
            outside[first : first + n] += left.cpu().numpy()
