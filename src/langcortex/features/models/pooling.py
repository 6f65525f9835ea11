"""Tokens pooled into words, batch by batch, on the device of the model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from langcortex.features.models.attention import MapPool
from langcortex.features.models.loading import LanguageModel
from langcortex.features.models.next_word import NEXT, compute_surprisal
from langcortex.features.models.tokens import Window


class BatchWords:
    """The words of one batch and their tokens, by which a tensor is pooled with a few gathers.

    Tokens are added in their order, with at most one per word in each step, so sums are reproducible.
    """

    def __init__(self, windows: Sequence[Window]) -> None:
        text = np.concatenate([np.full(int(w.new.sum()), i) for i, w in enumerate(windows)]).astype(np.int64)
        pairs = np.concatenate([w.pairs[w.new] for w in windows])
        order = np.lexsort((pairs[:, 1], text, pairs[:, 0]))
        text, word, place = text[order], pairs[order, 0], pairs[order, 1]
        self.words, begin, count = np.unique(word, return_index=True, return_counts=True)
        self.n_texts = len(windows)
        self.steps = []
        for j in range(int(count.max(initial=0))):
            row = np.flatnonzero(count > j)
            index = begin[row] + j
            self.steps.append((row, text[index], place[index]))
        self._steps_by_device: dict[str, Any] = {}

    def pool(self, tensor: Any) -> np.ndarray:
        """Sum the tokens of each word: (texts, tokens, width) → (n_words of the batch, width) float32."""
        steps = self._steps_on(tensor.device)
        values = tensor.reshape(self.n_texts, -1, tensor.shape[-1])
        out = values[steps[0][1], steps[0][2]].float()
        for row, text, place in steps[1:]:
            out[row] += values[text, place].float()
        pooled: np.ndarray = out.cpu().numpy()
        return pooled

    def _steps_on(self, device: Any) -> Any:
        import torch

        if str(device) not in self._steps_by_device:
            self._steps_by_device[str(device)] = [
                tuple(torch.as_tensor(x, device=device) for x in step) for step in self.steps
            ]
        return self._steps_by_device[str(device)]


class WordPool:
    """Features of the words of a run so far; memory is O(layers × words × width), without a copy of the tokens.

    Parameters
    ----------
    n_tokens : (n_words,) number of tokens of each word
    sentence : (n_words,) number of each word's sentence, from 0; the words of a sentence are contiguous
    """

    def __init__(self, n_tokens: np.ndarray, sentence: np.ndarray) -> None:
        self.n_tokens, self.sentence = n_tokens, sentence
        self.values: dict[tuple[str, int], np.ndarray] = {}
        self.bos: dict[int, np.ndarray] = {}
        self.outside: dict[int, np.ndarray] = {}

    def start_batch(self, windows: Sequence[Window], bos: bool, maps: bool) -> None:
        """Prepare for a batch."""
        self.batch = BatchWords(windows)
        self.map_pool = MapPool(windows, self.n_tokens, self.sentence, bos) if maps else None

    def add(self, kind: str, number: int, tensor: Any) -> None:
        """Add one tensor of the batch to its words."""
        if kind == "attention":
            self._add_maps(number, tensor)
            return
        pooled = self.batch.pool(tensor) if len(self.batch.words) else None
        if (kind, number) not in self.values:
            shape = (len(self.n_tokens), tensor.shape[-1])
            self.values[kind, number] = np.zeros(shape, dtype=np.float32)
        if pooled is not None:
            self.values[kind, number][self.batch.words] += pooled

    def _add_maps(self, number: int, weights: Any) -> None:
        assert self.map_pool is not None
        n_heads = weights.shape[1]
        if ("attention", number) not in self.values:
            n_words = len(self.n_tokens)
            self.values["attention", number] = np.zeros((self.map_pool.n_cells, n_heads), dtype=np.float32)
            self.bos[number] = np.zeros((n_words, n_heads), dtype=np.float32)
            self.outside[number] = np.zeros((n_words, n_heads), dtype=np.float32)
        self.map_pool.pool(weights, self.values["attention", number], self.bos[number], self.outside[number])

    def add_next_word(self, model: LanguageModel, windows: Sequence[Window], last: Any) -> None:
        """Add the surprisal of each word's tokens, and set the entropy before its first token."""
        for kind in NEXT:
            self.values.setdefault((kind, 0), np.zeros((len(self.n_tokens), 1)))
        text, word, place, first, share, target = [], [], [], [], [], []
        for i, w in enumerate(windows):
            pairs = w.pairs[w.new]
            text += [i] * len(pairs)
            word += pairs[:, 0].tolist()
            place += pairs[:, 1].tolist()
            first += w.first[w.new].tolist()
            # words that share a token share its surprisal, so that the sum over a sentence counts it once
            share += (1.0 / np.bincount(pairs[:, 1], minlength=1)[pairs[:, 1]]).tolist()
            target += [w.ids[p] for p in pairs[:, 1]]
        surprisal, entropy = compute_surprisal(model, last, np.array(target), np.array(text), np.array(place))
        np.add.at(self.values["surprisal", 0][:, 0], word, surprisal * share)
        begins = np.array(first, dtype=bool)
        self.values["entropy", 0][np.array(word)[begins], 0] = entropy[begins]

    def pop_layer(self, kind: str, number: int) -> dict[str, np.ndarray]:
        """Remove and return the arrays of one layer: means over tokens, and sums for surprisal."""
        values = self.values.pop((kind, number))
        if kind == "attention":
            return {"cells": values, "bos": self.bos.pop(number), "outside": self.outside.pop(number)}
        if kind not in NEXT:
            values /= self.n_tokens[:, None].astype(np.float32)
        return {"values": values}
