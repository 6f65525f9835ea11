"""What a model expects next: the surprisal of a token, and the entropy before it."""

from __future__ import annotations

from typing import Any

import numpy as np

from langcortex.errors import ModelError, SettingsError
from langcortex.features.models.loading import LanguageModel, text_config

NEXT = ("surprisal", "entropy")
LOGITS = 2**25  # logits held at once: 128 MB of float32


def require_head(model: LanguageModel) -> None:
    """Refuse a model that cannot say what it expects, or whose way from states to words is unknown.

    Raises
    ------
    SettingsError : the model was loaded without its head, or sees the words it is asked to expect
    ModelError : the head does something to the states that langcortex does not know
    """
    if model.head is None:
        raise SettingsError(
            f"'{model.name}' was loaded without its output head, which surprisal and entropy need. Load it with load_model(…, head=True)."
        )
    if not model.is_causal:
        raise SettingsError(
            f"'{model.name}' sees the words on both sides, so it has no surprisal. Take it from a causal model."
        )
    _verify(model)


def _verify(model: LanguageModel) -> None:
    """Hold `logits` against the whole model, on three tokens."""
    import torch

    ids = torch.arange(3, device=model.device)[None] % int(text_config(model.body.config).vocab_size)
    with torch.inference_mode():
        expected = model.head(input_ids=ids, use_cache=False).logits.float()
        found = logits(model, model.body(input_ids=ids, use_cache=False).last_hidden_state)
        scale = float(expected.std()) or 1.0
        off = float((found - expected.to(found.device)).abs().max())
    if not off <= 0.05 * scale:
        raise ModelError(
            f"The output head of '{model.name}' does not follow from its last layer in a way langcortex knows. Leave surprisal and entropy out."
        )


def logits(model: LanguageModel, states: Any) -> Any:
    """Turn last-layer states (…, width) into float32 logits (…, vocabulary), as the model's own head does.

    Gemma caps logits by  c · tanh(logit / c);  Cohere multiplies them by logit_scale, Granite divides them by
    logits_scaling.
    """
    import torch

    config = text_config(model.body.config)
    out = model.head.get_output_embeddings()(states).float()
    if getattr(config, "logit_scale", None):
        out = out * config.logit_scale
    if getattr(config, "logits_scaling", None):
        out = out / config.logits_scaling
    cap = getattr(config, "final_logit_softcapping", None)
    return cap * torch.tanh(out / cap) if cap else out


def expectations(
    model: LanguageModel, states: Any, targets: np.ndarray, rows: np.ndarray, places: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Say how surprising tokens are, and how uncertain the model was before each.

    Surprisal is  −log₂ p(token | what stands before it),  entropy  −Σ p log₂ p  over the whole vocabulary.

    Parameters
    ----------
    states : (texts, tokens, width), of the last layer
    targets, rows, places : (n_tokens,) each token, its text, and its place there (at least 1)

    Returns
    -------
    surprisal, entropy : (n_tokens,) in bits, float64
    """
    import torch

    vocabulary = int(text_config(model.body.config).vocab_size)
    step = max(1, LOGITS // vocabulary)
    surprisal, entropy = np.empty(len(targets)), np.empty(len(targets))
    with torch.inference_mode():
        for a in range(0, len(targets), step):
            b = slice(a, a + step)
            index = [torch.as_tensor(x[b], device=states.device) for x in (rows, places - 1, targets)]
            log_p = torch.log_softmax(logits(model, states[index[0], index[1]]), dim=-1)
            there = index[2].to(log_p.device)[:, None]
            surprisal[b] = -log_p.gather(1, there)[:, 0].double().cpu().numpy() / np.log(2)
            # torch.special.entr is exact where a probability is 0
            entropy[b] = torch.special.entr(log_p.exp_()).sum(dim=-1).double().cpu().numpy() / np.log(2)
    return surprisal, entropy
