"""Surprisal and entropy: those of the model with its own head, and errors where they are undefined."""

import numpy as np
import pytest
import torch

from langcortex.errors import ModelError, SettingsError
from langcortex.features.models.extraction import extract
from langcortex.features.models.loading import LanguageModel, load_model
from reference.model_families import CAUSAL


@pytest.mark.parametrize("name", CAUSAL)
def test_surprisal_and_entropy_are_those_of_the_models_own_head(story, make_family, sentences, name):
    model = make_family(name)
    surprisal, entropy = np.zeros(len(story)), np.zeros(len(story))
    for rows, ids, pairs in sentences:
        with torch.inference_mode():
            p = torch.softmax(model.head(input_ids=torch.tensor([ids])).logits[0].double(), dim=-1).numpy()
        for row in rows:
            places = pairs[pairs[:, 0] == row, 1]
            surprisal[row] = sum(-np.log2(p[t - 1, ids[t]]) for t in places)
            entropy[row] = -(p[places[0] - 1] * np.log2(p[places[0] - 1])).sum()
    layers = extract(story, model, take=["surprisal", "entropy"])
    assert list(layers) == [f"{name}/surprisal", f"{name}/entropy"]
    np.testing.assert_allclose(layers[f"{name}/surprisal"].values[:, 0], surprisal, atol=1e-4)
    np.testing.assert_allclose(layers[f"{name}/entropy"].values[:, 0], entropy, atol=1e-4)
    assert layers[f"{name}/surprisal"].combine == "sum"
    assert layers[f"{name}/entropy"].combine == "mean"


def test_surprisal_needs_a_head_a_causal_model_and_something_before_the_first_word(
    story, make_family, family_tokenizer, llama_folder, monkeypatch
):
    bare = load_model(str(llama_folder), device="cpu")
    with pytest.raises(SettingsError, match=r"loaded without its output head.*head=True"):
        extract(story, bare, take=["surprisal"])
    bert = make_family("bert")
    with pytest.raises(SettingsError, match="sees the words on both sides"):
        extract(story, LanguageModel("bert", bert.body, family_tokenizer, "r", bert.body), take=["entropy"])
    with pytest.raises(SettingsError, match=r"Nothing stands before the first word.*bos = true"):
        extract(story, make_family("llama"), take=["surprisal"], bos=False)
    after = extract(story, make_family("llama"), take=["surprisal"], bos=False, prefix="Once. ")
    assert np.isfinite(after["llama/surprisal"].values).all()
    monkeypatch.setattr(
        "langcortex.features.models.next_word.compute_logits",
        lambda model, states: states @ torch.ones(32, 340),
    )
    with pytest.raises(ModelError, match="transforms its last layer in an unknown way"):
        extract(story, make_family("llama"), take=["surprisal"])


def test_a_head_changes_nothing_about_the_states(story, llama_folder):
    plain = extract(story, load_model(str(llama_folder), "m", device="cpu"))
    headed = extract(story, load_model(str(llama_folder), "m", device="cpu", head=True))
    for name in plain:
        np.testing.assert_array_equal(plain[name].values, headed[name].values)
    a = load_model(str(llama_folder), untrained_seed=3, device="cpu")
    b = load_model(str(llama_folder), untrained_seed=3, device="cpu", head=True)
    for (name, left), right in zip(a.body.named_parameters(), b.body.parameters(), strict=True):
        assert torch.equal(left, right), name
    assert a.revision == b.revision
    assert np.isfinite(extract(story, b, take=["surprisal"])[f"{b.name}/surprisal"].values).all()
