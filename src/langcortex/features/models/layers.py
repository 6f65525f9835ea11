"""The layers of a model as a mapping of feature tables, read from disk one at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from langcortex.features.table import Features

if TYPE_CHECKING:
    from langcortex.features.models.attention import AttentionMaps


@dataclass(frozen=True, eq=False)
class Layers(Mapping[str, Features]):
    """The layers of a model, each read when it is looked up: all together may be larger than memory.

    Attributes
    ----------
    names : e.g. ``("smollm2/layer-00", …)``
    read : name → Features
    audit : counts of words, tokens, split words and words that share a token
    by_run : run → the same counts, and "odd words", a list
    read_maps : name → AttentionMaps
    """

    names: tuple[str, ...]
    read: Callable[[str], Features]
    audit: Mapping[str, Any] = field(default_factory=dict)
    by_run: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    read_maps: Callable[[str], AttentionMaps] | None = None

    def names_of_kind(self, kind: str) -> tuple[str, ...]:
        """Return the names of one kind: "states" (or "layer"), "heads", "mlp", "attention", "surprisal" or "entropy"."""
        prefix = "layer" if kind == "states" else kind
        return tuple(n for n in self.names if n.rsplit("/", 1)[-1].split("-")[0] == prefix)

    def __getitem__(self, name: str) -> Features:
        if name not in self.names:
            raise KeyError(name)
        return self.read(name)

    def attention_maps(self, name: str) -> AttentionMaps:
        """Return the attention maps of one layer, by a name such as ``"smollm2/attention-07"``."""
        if self.read_maps is None or name not in self.names_of_kind("attention"):
            raise KeyError(name)
        return self.read_maps(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)
