"""Tokens merged to words, batch by batch, where the model runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from langcortex.features.models.attention import MapPlan
from langcortex.features.models.loading import LanguageModel
from langcortex.features.models.next_word import NEXT, expectations
from langcortex.features.models.tokens import Window


class Slots:
    """The words of one batch and their tokens, so that a tensor is pooled with a few gathers.

    Tokens are added in their order, each step touching a word at most once: the sum is the same on every run.
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
            slot = np.flatnonzero(count > j)
            at = begin[slot] + j
            self.steps.append((slot, text[at], place[at]))
        self._there: dict[str, Any] = {}

    def pool(self, tensor: Any) -> np.ndarray:
        """Sum each word's tokens: (texts, tokens, width) → (n_words of the batch, width) float32."""
        steps = self._on(tensor.device)
        values = tensor.reshape(self.n_texts, -1, tensor.shape[-1])
        out = values[steps[0][1], steps[0][2]].float()
        for slot, text, place in steps[1:]:
            out[slot] += values[text, place].float()
        pooled: np.ndarray = out.cpu().numpy()
        return pooled

    def _on(self, device: Any) -> Any:
        import torch

        if str(device) not in self._there:
            self._there[str(device)] = [
                tuple(torch.as_tensor(x, device=device) for x in step) for step in self.steps
            ]
        return self._there[str(device)]


class Words:
    """What is known of each word of a run so far: O(layers × words × width), and never the tokens.

    Parameters
    ----------
    n_tokens : (n_words,) how many tokens each word has
    sentence : (n_words,) a number for each word's sentence, from 0; a sentence's words stand together
    """

    def __init__(self, n_tokens: np.ndarray, sentence: np.ndarray) -> None:
        self.n_tokens, self.sentence = n_tokens, sentence
        self.values: dict[tuple[str, int], np.ndarray] = {}
        self.bos: dict[int, np.ndarray] = {}
        self.outside: dict[int, np.ndarray] = {}

    def start(self, windows: Sequence[Window], bos: bool, maps: bool) -> None:
        """Prepare for a batch."""
        self.slots = Slots(windows)
        self.plan = MapPlan(windows, self.n_tokens, self.sentence, bos) if maps else None

    def take(self, kind: str, number: int, tensor: Any) -> None:
        """Pool one tensor of the batch into its words."""
        if kind == "attention":
            self._take_maps(number, tensor)
            return
        pooled = self.slots.pool(tensor) if len(self.slots.words) else None
        if (kind, number) not in self.values:
            shape = (len(self.n_tokens), tensor.shape[-1])
            self.values[kind, number] = np.zeros(shape, dtype=np.float32)
        if pooled is not None:
            self.values[kind, number][self.slots.words] += pooled

    def _take_maps(self, number: int, weights: Any) -> None:
        assert self.plan is not None
        n_heads = weights.shape[1]
        if ("attention", number) not in self.values:
            n_words = len(self.n_tokens)
            self.values["attention", number] = np.zeros((self.plan.n_cells, n_heads), dtype=np.float32)
            self.bos[number] = np.zeros((n_words, n_heads), dtype=np.float32)
            self.outside[number] = np.zeros((n_words, n_heads), dtype=np.float32)
        self.plan.pool(weights, self.values["attention", number], self.bos[number], self.outside[number])

    def expect(self, model: LanguageModel, windows: Sequence[Window], last: Any) -> None:
        """Add up each word's surprisal over its tokens, and note the entropy before its first."""
        for kind in NEXT:
            self.values.setdefault((kind, 0), np.zeros((len(self.n_tokens), 1)))
        text, word, place, first, share, target = [], [], [], [], [], []
        for i, w in enumerate(windows):
            pairs = w.pairs[w.new]
            text += [i] * len(pairs)
            word += pairs[:, 0].tolist()
            place += pairs[:, 1].tolist()
            first += w.first[w.new].tolist()
            # words that share a token share its surprisal, so that a sentence's sum is the sentence's own
            share += (1.0 / np.bincount(pairs[:, 1], minlength=1)[pairs[:, 1]]).tolist()
            target += [w.ids[p] for p in pairs[:, 1]]
        surprisal, entropy = expectations(model, last, np.array(target), np.array(text), np.array(place))
        np.add.at(self.values["surprisal", 0][:, 0], word, surprisal * share)
        begins = np.array(first, dtype=bool)
        self.values["entropy", 0][np.array(word)[begins], 0] = entropy[begins]

    def finished(self, kind: str, number: int) -> dict[str, np.ndarray]:
        """Give what is kept of one layer: means over tokens; sums for surprisal."""
        values = self.values.pop((kind, number))
        if kind == "attention":
            return {"cells": values, "bos": self.bos.pop(number), "outside": self.outside.pop(number)}
        if kind not in NEXT:
            values /= self.n_tokens[:, None].astype(np.float32)
        return {"values": values}
