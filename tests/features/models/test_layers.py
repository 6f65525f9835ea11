"""Layers: each is read when it is looked up, and names tell their kind."""

import numpy as np
import pytest

from langcortex.features.models.layers import Layers
from langcortex.features.table import Features


def _words(story, name):
    values = np.zeros((len(story), 1))
    return Features(name, story.ids, story.onset, story.duration, story.run, values)


def test_layers_are_read_when_they_are_looked_up(story):
    names = []

    def read(name):
        names.append(name)
        return _words(story, name)

    layers = Layers(("m/layer-00", "m/layer-01"), read)
    assert list(layers) == ["m/layer-00", "m/layer-01"]
    assert len(layers) == 2
    assert "m/layer-01" in layers.names
    assert names == []
    assert layers["m/layer-01"].name == "m/layer-01"
    assert names == ["m/layer-01"]
    with pytest.raises(KeyError):
        layers["m/layer-02"]
    assert names == ["m/layer-01"]


def test_names_are_selected_by_kind(story):
    layers = Layers(("m/layer-00", "m/heads-01", "m/surprisal"), lambda name: _words(story, name))
    assert layers.names_of_kind("states") == ("m/layer-00",)
    assert layers.names_of_kind("heads") == ("m/heads-01",)
    assert layers.names_of_kind("surprisal") == ("m/surprisal",)
    assert layers.names_of_kind("mlp") == ()
    with pytest.raises(KeyError):
        layers.attention_maps("m/attention-01")
