"""Attention maps between the words of a sentence, one per head."""

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
    """Attention of each word of a sentence to each other word: one row per cell, one column per head.

    Attention to a word is the sum over its tokens; attention of a word is the mean over its tokens. The cells of a
    word, its attention to the beginning-of-text token and its attention outside sum to 1.

    Attributes
    ----------
    name : e.g. ``"llama/attention-07"``
    sentence, row, column : (n_cells,) ids of the sentence, the attending word and the attended word
    values : (n_cells, n_heads)
    words : (n_words,) ids
    bos, outside : (n_words, n_heads) attention of each word to the beginning-of-text token, and to everything else:
        a prefix, earlier sentences of a running context, tokens of no word
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
    def _word_row(self) -> dict[str, int]:
        return {str(name): i for i, name in enumerate(self.words)}

    def maps_of_sentence(self, sentence: str) -> np.ndarray:
        """Return the maps of one sentence, (n_heads, n_words, n_words), rows attend to columns; NaN in removed cells."""
        here = np.flatnonzero(self.sentence == sentence)
        if not len(here):
            raise AlignmentError(f"'{self.name}' has no sentence '{sentence}'.")
        row, column = (
            np.array([self._word_row[str(w)] for w in ids[here]]) for ids in (self.row, self.column)
        )
        first = min(int(row.min()), int(column.min()))
        n = max(int(row.max()), int(column.max())) - first + 1
        out = np.full((self.values.shape[1], n, n), np.nan, dtype=self.values.dtype)
        out[:, row - first, column - first] = self.values[here].T
        return out

    def lower(self, diagonal: bool = True, renormalise: bool = False) -> AttentionMaps:
        """Return the lower triangle: the cells whose attended word does not come after the attending word.

        Parameters
        ----------
        diagonal : keep a word's attention to itself
        renormalise : divide the remaining cells of a word by their sum; NaN where it is 0
        """
        row = np.array([self._word_row[str(w)] for w in self.row], dtype=np.int64)
        column = np.array([self._word_row[str(w)] for w in self.column], dtype=np.int64)
        keep = column <= row if diagonal else column < row
        values = self.values[keep]
        if renormalise:
            total = np.zeros((len(self.words), values.shape[1]))
            np.add.at(total, row[keep], values)
            with np.errstate(invalid="ignore", divide="ignore"):
                values = np.where(total[row[keep]] > 0, values / total[row[keep]], np.nan).astype(
                    values.dtype
                )
        labels = {k: getattr(self, k)[keep] for k in ("sentence", "row", "column")}
        return replace(self, values=values, **labels)

    def to_features(self, story: Story) -> Features:
        """Make a table of the cells, with ids ``"{row}<{column}"`` and times of the attending word: one column per head."""
        where = {str(name): i for i, name in enumerate(story.ids)}
        rows = np.array([where[str(w)] for w in self.row], dtype=np.int64)
        ids = np.array([f"{a}<{b}" for a, b in zip(self.row, self.column, strict=True)])
        return Features(self.name, ids, story.onset[rows], story.duration[rows], story.run[rows], self.values)


def label_cells(story: Story) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Label every cell of every sentence's maps, row by row.

    Returns
    -------
    sentence, row, column : (n_cells,) ids of the sentence, the attending word and the attended word
    """
    sentence, row, column = [], [], []
    edges = np.concatenate([[0], np.cumsum(story.sentences.n_words)])
    for i, name in enumerate(story.sentences.ids):
        words = story.ids[edges[i] : edges[i + 1]]
        sentence.append(np.full(len(words) ** 2, name))
        row.append(np.repeat(words, len(words)))
        column.append(np.tile(words, len(words)))
    return np.concatenate(sentence), np.concatenate(row), np.concatenate(column)


class MapPool:
    """Weights that pool the attention between tokens into cells, computed once per batch and used for every layer.

    Parameters
    ----------
    windows : the texts of the batch
    n_tokens : (n_words,) tokens of each word of the run
    sentence : (n_words,) number of each word's sentence, from 0
    bos : whether every text begins with a beginning-of-text token
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
            pair_sentence = sentence[w.pairs[:, 0]]
            for s in np.unique(pair_sentence[w.new]).tolist():
                keys = pair_sentence == s
                queries = keys & w.new
                tokens = np.unique(w.pairs[queries, 1])
                attending = np.zeros((size[s], len(tokens)), dtype=np.float32)
                attending[w.pairs[queries, 0] - first[s], np.searchsorted(tokens, w.pairs[queries, 1])] = (
                    1.0 / n_tokens[w.pairs[queries, 0]]
                )
                attended = np.zeros((len(w.ids), size[s]), dtype=np.float32)
                attended[w.pairs[keys, 1], w.pairs[keys, 0] - first[s]] = share[keys]
                self.parts.append((text, int(s), int(first[s]), tokens, attending, attended))

    def pool(self, weights: Any, cells: np.ndarray, bos: np.ndarray, outside: np.ndarray) -> None:
        """Add the maps of one layer, (texts, heads, tokens, tokens), to the cells of the run."""
        import torch

        for text, s, first, tokens, attending, attended in self.parts:
            n = int(self.size[s])
            index = torch.as_tensor(tokens, device=weights.device)
            rows = weights[text][:, index, : len(attended)].float()
            by_word = torch.as_tensor(attending, device=weights.device)
            words = by_word @ (rows @ torch.as_tensor(attended, device=weights.device))
            to_bos = (
                by_word @ rows[:, :, 0].T if self.bos else torch.zeros((n, rows.shape[0]), device=rows.device)
            )
            remainder = by_word.sum(dim=1)[:, None] - words.sum(dim=2).T - to_bos
            block = slice(int(self.begin[s]), int(self.begin[s + 1]))
            cells[block] += words.permute(1, 2, 0).reshape(n * n, -1).cpu().numpy()
            bos[first : first + n] += to_bos.cpu().numpy()
            outside[first : first + n] += remainder.cpu().numpy()
