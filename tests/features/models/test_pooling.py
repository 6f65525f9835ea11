"""Pooling: words are the same whatever the batch and the padding."""

import numpy as np
import pytest

from langcortex.features.models.extraction import extract
from reference.model_families import CONFIGS, stack_layers


@pytest.mark.parametrize("context", ["sentence", 8])
def test_the_size_of_a_batch_changes_nothing(story, model, context):
    single = stack_layers(extract(story, model, context=context, batch_tokens=1))
    batched = stack_layers(extract(story, model, context=context, batch_tokens=10_000))
    np.testing.assert_allclose(single, batched, atol=1e-5)


@pytest.mark.parametrize("name", CONFIGS)
def test_padding_changes_nothing(story, make_family, name):
    """A batch has the same values as its texts one by one, for every kind of feature."""
    model = make_family(name)
    kinds = ["states", "heads", "mlp", "attention", *([] if name == "bert" else ["surprisal", "entropy"])]
    if name in ("gptj", "bloom", "falcon", "gpt-neo"):
        kinds.remove("attention")
    single = extract(story, model, take=kinds, batch_tokens=1)
    batched = extract(story, model, take=kinds, batch_tokens=10_000)
    for layer in single:
        np.testing.assert_allclose(single[layer].values, batched[layer].values, atol=2e-5)
