"""Fixtures of model features: saved models, one small model per family, and a story's sentences as tokens."""

import numpy as np
import pytest
import torch
import transformers

from langcortex.features.models.loading import LanguageModel, load_model
from langcortex.features.models.tokens import encode_passage, make_frame
from reference.model_families import CONFIGS


@pytest.fixture(scope="module", params=["llama with BOS", "gpt2"])
def folder(request):
    return request.getfixturevalue("llama_folder" if request.param.startswith("llama") else "gpt2_folder")


@pytest.fixture(scope="module")
def model(folder):
    return load_model(str(folder), device="cpu")


@pytest.fixture(scope="module")
def family_tokenizer(llama_folder):
    return transformers.AutoTokenizer.from_pretrained(llama_folder)


@pytest.fixture(scope="module")
def make_family(family_tokenizer):
    """Make a small model of a family, once per module."""
    models = {}

    def make(name):
        if name not in models:
            torch.manual_seed(5)
            config = CONFIGS[name]()
            loader = transformers.AutoModel if name == "bert" else transformers.AutoModelForCausalLM
            model = loader.from_config(config).eval()
            with torch.no_grad():  # new biases and norms are 0 and 1, which would hide mistakes
                for parameter in model.parameters():
                    if parameter.ndim == 1:
                        parameter += 0.1 * torch.randn_like(parameter)
            body = model if name == "bert" else model.base_model
            head = None if name == "bert" else model
            models[name] = LanguageModel(name, body, family_tokenizer, f"{name}-seed-5", head)
        return models[name]

    return make


@pytest.fixture(scope="module")
def sentences(story, family_tokenizer):
    """The words, tokens (after BOS) and pairs of word and token of each sentence."""
    frame = make_frame(family_tokenizer, "m")
    out = []
    for name in story.sentences.ids:
        rows = np.flatnonzero(story.sentence == name)
        passage = encode_passage(story, rows[0], rows[-1] + 1, family_tokenizer, "m", frame)
        out.append((rows, passage.head + passage.ids, passage.pairs + np.array([0, len(passage.head)])))
    return out
