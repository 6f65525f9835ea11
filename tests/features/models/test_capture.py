"""Capture: tensors from hooks equal those of HuggingFace, for every family of models."""

import numpy as np
import pytest
import torch
import transformers

from langcortex.errors import ModelError
from langcortex.features.models.capture import find_blocks, find_output_projection, head_parts
from langcortex.features.models.extraction import extract
from langcortex.features.models.loading import LanguageModel
from reference.model_families import CONFIGS, GROUPED, word_means


@pytest.mark.parametrize("name", CONFIGS)
def test_hidden_states_are_those_huggingface_gives(story, make_family, sentences, name):
    model = make_family(name)
    states = []
    for _, ids, _ in sentences:
        with torch.inference_mode():
            out = model.body(input_ids=torch.tensor([ids]), output_hidden_states=True)
        states.append([h[0].numpy() for h in out.hidden_states])
    layers = extract(story, model)
    assert len(layers) == model.n_layers + 1 == len(states[0])
    for k, name_of_layer in enumerate(layers):
        expected = word_means(story, sentences, [s[k] for s in states])
        scale = max(1.0, np.abs(expected).max())
        np.testing.assert_allclose(layers[name_of_layer].values, expected, atol=1e-6 * scale)


@pytest.mark.parametrize("name", CONFIGS)
def test_heads_projected_add_up_to_what_attention_writes(story, make_family, sentences, name):
    """Σ_h W_h z_h + bias is the output of the projection, also where queries are grouped."""
    model = make_family(name)
    layers = extract(story, model, take=["heads"], layers=[0, 1, 2])
    assert list(layers) == [f"{name}/heads-01", f"{name}/heads-02"]
    for number in (1, 2):
        written: list[np.ndarray] = []
        projection = find_output_projection(model, number)
        handle = projection.register_forward_hook(
            lambda m, a, out, written=written: written.append(out.reshape(-1, out.shape[-1]).numpy())
        )
        with torch.inference_mode():
            for _, ids, _ in sentences:
                model.body(input_ids=torch.tensor([ids]))
        handle.remove()
        parts = head_parts(model, number, layers[f"{name}/heads-{number:02d}"].values)
        assert parts.shape == (len(story), model.n_heads, model.width)
        bias = getattr(projection, "bias", None)
        total = parts.sum(axis=1) + (0 if bias is None else bias.detach().numpy())
        np.testing.assert_allclose(total, word_means(story, sentences, written), atol=2e-5)
    with pytest.raises(ModelError, match=r"Heads of layer 1 of .* have \d+ columns; these values have shape"):
        head_parts(model, 1, np.zeros((2, 3)))


@pytest.mark.parametrize("name", CONFIGS)
def test_mlps_are_what_their_module_gives(story, make_family, sentences, name):
    """In models that add the MLP as it is, the residual stream before and after the block says so."""
    model = make_family(name)
    layers = extract(story, model, take=["states", "heads", "mlp"])
    if name in (
        "llama",
        "qwen2",
        "mistral",
        "gpt2",
        "gemma",
        "bloom",
        "gpt-neox",
        "gpt-neo",
        "opt",
        "phi",
        "falcon",
        "gptj",
    ):
        bias = getattr(find_output_projection(model, 1), "bias", None)
        attention = head_parts(model, 1, layers[f"{name}/heads-01"].values).sum(axis=1)
        attention = attention + (0 if bias is None else bias.detach().numpy())
        step = layers[f"{name}/layer-01"].values - layers[f"{name}/layer-00"].values
        np.testing.assert_allclose(layers[f"{name}/mlp-01"].values, step - attention, atol=1e-4)
    assert layers[f"{name}/mlp-02"].values.shape == (len(story), model.width)
    assert np.isfinite(layers[f"{name}/mlp-02"].values).all()


def test_hooks_are_taken_off_and_attention_is_as_before(story, make_family):
    model = make_family("llama")
    model.body.set_attn_implementation("sdpa")
    extract(story, model, take=["states", "heads", "mlp", "attention"])
    assert model.body.config._attn_implementation == "sdpa"
    ours = [
        h
        for m in model.body.modules()
        for h in m._forward_hooks.values()
        if "langcortex" in getattr(h, "__module__", "")
    ]
    assert not ours


def test_a_model_whose_inside_is_unknown_is_an_error(story, make_family, family_tokenizer):
    class Block(torch.nn.Module):
        pass

    body = torch.nn.Module()
    body.config = transformers.LlamaConfig(**GROUPED)
    odd = LanguageModel("odd", body, family_tokenizer, "r")
    with pytest.raises(ModelError, match="'odd' does not consist of a list of 3 blocks"):
        find_blocks(odd)
    body.layers = torch.nn.ModuleList(Block() for _ in range(3))
    with pytest.raises(
        ModelError,
        match=r"has the output projection of its attention in an unknown place \(it is a Block\). Take hidden",
    ):
        find_output_projection(odd, 1)
