"""Next-word predictions: the surprisal of tokens, and the entropy before them."""

from __future__ import annotations

from typing import Any

import numpy as np

from langcortex.errors import ModelError, SettingsError
from langcortex.features.models.loading import LanguageModel, text_config

NEXT = ("surprisal", "entropy")
LOGITS = 2**25  # logits at once: 128 MB of float32


def require_head(model: LanguageModel) -> None:
    """Check that a model predicts the next token, by an output head that `compute_logits` can reproduce.

    Raises
    ------
    SettingsError : the model was loaded without its head, or is not causal
    ModelError : the head transforms states in an unknown way
    """
    if model.head is None:
        raise SettingsError(
            f"'{model.name}' was loaded without its output head, which surprisal and entropy need. Load it with load_model(…, head=True)."
        )
    if not model.is_causal:
        raise SettingsError(
            f"'{model.name}' sees the words on both sides, so it has no surprisal. Take it from a causal model."
        )
    _check_logits(model)


def _check_logits(model: LanguageModel) -> None:
    """Compare `compute_logits` with the output of the model, on three tokens."""
    import torch

    ids = torch.arange(3, device=model.device)[None] % int(text_config(model.body.config).vocab_size)
    with torch.inference_mode():
        expected = model.head(input_ids=ids, use_cache=False).logits.float()
        ours = compute_logits(model, model.body(input_ids=ids, use_cache=False).last_hidden_state)
        scale = float(expected.std()) or 1.0
        off = float((ours - expected.to(ours.device)).abs().max())
    if not off <= 0.05 * scale:
        raise ModelError(
            f"The output head of '{model.name}' transforms its last layer in an unknown way. Leave surprisal and entropy out."
        )


def compute_logits(model: LanguageModel, states: Any) -> Any:
    """Compute float32 logits (…, vocabulary) from states of the last layer (…, width), as the model's head does.

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


def compute_surprisal(
    model: LanguageModel, states: Any, targets: np.ndarray, rows: np.ndarray, places: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Compute the surprisal of tokens and the entropy of the predictions before them.

    Surprisal is  −log₂ p(token | tokens before it),  entropy  −Σ p log₂ p  over the whole vocabulary.

    Parameters
    ----------
    states : (texts, tokens, width), of the last layer
    targets, rows, places : (n_tokens,) each token, its text, and its position in it (at least 1)

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
            log_p = torch.log_softmax(compute_logits(model, states[index[0], index[1]]), dim=-1)
            target = index[2].to(log_p.device)[:, None]
            surprisal[b] = -log_p.gather(1, target)[:, 0].double().cpu().numpy() / np.log(2)
            # torch.special.entr is exact where a probability is 0
            entropy[b] = torch.special.entr(log_p.exp_()).sum(dim=-1).double().cpu().numpy() / np.log(2)
    return surprisal, entropy
