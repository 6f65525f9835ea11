"""What happens inside a model, seen through hooks: each block is pooled as it runs and then forgotten.

Numbers follow HuggingFace's ``hidden_states``: layer 0 is what enters the first block (the embeddings, scaled and
normalised as the model does), layer n the output of block n, the last one after the final normalisation. Heads,
MLPs and attention maps of block n, which makes layer n, carry the number n, so they count from 1.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from langcortex.errors import ModelError
from langcortex.features.models.loading import LanguageModel, text_config

OF_BLOCKS = ("heads", "mlp", "attention")
PER_LAYER = ("states", *OF_BLOCKS)

Consume = Callable[[str, int, Any], None]
"""Called with a kind, a layer's number and a tensor (texts, tokens, features), once a batch."""

_PROJECTIONS = (
    "self_attn.o_proj",
    "self_attn.out_proj",
    "self_attn.dense",
    "attn.c_proj",
    "attn.o_proj",
    "attn.out_proj",
    "attn.attention.out_proj",
    "attention.dense",
    "attention.wo",
    "attention.out_lin",
    "attention.output.dense",
    "self_attention.dense",
)
_MLPS = (
    "mlp.dense_4h_to_h",  # Bloom's mlp adds the residual stream itself
    "mlp",
    "feed_forward",
    "block_sparse_moe",
    "ffn",
    "fc2",
    "output.dense",
)


def blocks_of(model: LanguageModel) -> Sequence[Any]:
    """Find a model's blocks, in order.

    Raises
    ------
    ModelError : the model is not built of a list of blocks
    """
    import torch

    found = [
        (name, module)
        for name, module in model.body.named_modules()
        if isinstance(module, torch.nn.ModuleList) and len(module) == model.n_layers
    ]
    # a model of pictures and words has blocks for both
    found.sort(key=lambda item: ("vision" in item[0] or "audio" in item[0], item[0].count(".")))
    if not found:
        raise ModelError(
            f"'{model.name}' is not built of {model.n_layers} blocks in a list, so langcortex cannot look inside it. Use another model."
        )
    blocks: Sequence[Any] = found[0][1]
    return blocks


def projection_of(model: LanguageModel, number: int) -> Any:
    """Find the output projection of the attention of block `number` (from 1): its input is the heads, side by side."""
    return _part(model, number, _PROJECTIONS, "the output projection of its attention")


def head_parts(model: LanguageModel, layer: int, values: np.ndarray) -> np.ndarray:
    """Project every head's output to the width of the model, each by its own columns of the output projection.

    The attention of block `layer` writes  Σ_h parts[:, h] + bias  into the residual stream.

    Parameters
    ----------
    layer : 1 … n_layers
    values : (n_rows, n_heads · head_dim), as kept under ``"{model}/heads-07"``

    Returns
    -------
    parts : (n_rows, n_heads, width) float32
    """
    weight = _weight_of(model, layer)
    n_heads = model.n_heads
    if values.ndim != 2 or values.shape[1] != weight.shape[1]:
        raise ModelError(
            f"Heads of layer {layer} of '{model.name}' have {weight.shape[1]} columns; these values have shape {values.shape}."
        )
    by_head = values.reshape(len(values), n_heads, -1)
    split = weight.reshape(weight.shape[0], n_heads, -1)
    parts: np.ndarray = np.einsum("nhd,whd->nhw", by_head, split, optimize=True).astype(np.float32)
    return parts


def _weight_of(model: LanguageModel, layer: int) -> np.ndarray:
    """Read an output projection as (width, n_heads · head_dim), by applying it: it may be packed or transposed."""
    import torch

    projection = projection_of(model, layer)
    width = model.width
    n_columns = int(getattr(projection, "in_features", 0) or getattr(projection, "nx", 0) or 0)
    if not n_columns:
        config = text_config(model.body.config)
        n_columns = model.n_heads * int(getattr(config, "head_dim", None) or width // model.n_heads)
    with torch.inference_mode():
        dtype = next((p.dtype for p in projection.parameters() if p.is_floating_point()), torch.float32)
        probe = torch.eye(n_columns, dtype=dtype, device=model.device)
        out = projection(probe).float() - projection(torch.zeros_like(probe[:1])).float()
    weight: np.ndarray = out.T.cpu().numpy()
    return weight


def _part(model: LanguageModel, number: int, paths: Sequence[str], what: str) -> Any:
    block = blocks_of(model)[number - 1]
    for path in paths:
        here = block
        for step in path.split("."):
            here = getattr(here, step, None)
        if here is not None:
            return here
    raise ModelError(
        f"langcortex does not know where a block of '{model.name}' keeps {what} (it is a {type(block).__name__}). "
        "Take hidden states only."
    )


def _attention_of(model: LanguageModel, number: int) -> Any:
    paths = ("self_attn", "attn.attention", "attn", "attention.self", "self_attention", "attention")
    return _part(model, number, paths, "its attention")


@contextlib.contextmanager
def capture_states(
    model: LanguageModel, wanted: Mapping[str, Sequence[int]], consume: Consume
) -> Iterator[None]:
    """Hand what is wanted to `consume` while the model runs; everything is taken off again afterwards.

    Parameters
    ----------
    wanted : kind → numbers; of "states" the last layer comes from the model's output, see `read_batch`
    consume : called once a batch for each kind and number
    """
    handles: list[Any] = []
    blocks = blocks_of(model)
    try:
        for number in wanted.get("states", ()):
            if number == 0:
                handles.append(
                    blocks[0].register_forward_pre_hook(_entering(consume, "states", 0), with_kwargs=True)
                )
            elif number < len(blocks):
                handles.append(blocks[number - 1].register_forward_hook(_leaving(consume, "states", number)))
        for number in wanted.get("heads", ()):
            place = projection_of(model, number)
            handles.append(
                place.register_forward_pre_hook(_entering(consume, "heads", number), with_kwargs=True)
            )
        for number in wanted.get("mlp", ()):
            place = _part(model, number, _MLPS, "its MLP")
            handles.append(place.register_forward_hook(_leaving(consume, "mlp", number)))
        for number in wanted.get("attention", ()):
            handles.append(_attention_of(model, number).register_forward_hook(_looking(consume, number)))
        with _maps_computed(model) if wanted.get("attention") else contextlib.nullcontext():
            yield
    finally:
        for handle in handles:
            handle.remove()


def _entering(consume: Consume, kind: str, number: int) -> Callable[..., None]:
    def hook(module: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        consume(kind, number, args[0] if args else kwargs["hidden_states"])

    return hook


def _leaving(consume: Consume, kind: str, number: int) -> Callable[..., None]:
    def hook(module: Any, args: tuple[Any, ...], output: Any) -> None:
        consume(kind, number, output[0] if isinstance(output, tuple) else output)

    return hook


def _looking(consume: Consume, number: int) -> Callable[..., None]:
    def hook(module: Any, args: tuple[Any, ...], output: Any) -> None:
        parts = output if isinstance(output, tuple) else (output,)
        maps = next((p for p in parts[1:] if getattr(p, "ndim", 0) == 4), None)
        if maps is None:
            raise ModelError(
                f"{type(module).__name__} gives no attention maps. Leave 'attention' out of features.take."
            )
        consume("attention", number, maps)

    return hook


@contextlib.contextmanager
def _maps_computed(model: LanguageModel) -> Iterator[None]:
    """Let attention be computed step by step: the fast ways never make a map."""
    body = model.body
    before = getattr(body.config, "_attn_implementation", None)
    if before == "eager":
        yield
        return
    _implement(body, "eager")
    try:
        yield
    finally:
        _implement(body, before)


def _implement(body: Any, way: str | None) -> None:
    if hasattr(body, "set_attn_implementation"):
        body.set_attn_implementation(way)
    else:
        body.config._attn_implementation = way


def read_batch(
    model: LanguageModel, texts: Sequence[list[int]], wanted: Mapping[str, Sequence[int]], consume: Consume
) -> Any:
    """Run one batch, padded on the right, and hand what is wanted to `consume` as it comes about.

    Padding is exact: a causal model never looks right, and an encoder is told by the mask.

    Returns
    -------
    the last layer's states (texts, tokens, width), on the model's device
    """
    import torch

    longest = max(map(len, texts))
    ids = torch.zeros((len(texts), longest), dtype=torch.long)
    mask = torch.zeros((len(texts), longest), dtype=torch.long)
    for i, text in enumerate(texts):
        ids[i, : len(text)] = torch.tensor(text)
        mask[i, : len(text)] = 1
    device = model.device
    options = {"use_cache": False} if model.is_causal else {}
    with torch.inference_mode(), capture_states(model, wanted, consume):
        output = model.body(input_ids=ids.to(device), attention_mask=mask.to(device), **options)
        last = output.last_hidden_state
        if model.n_layers in wanted.get("states", ()):
            consume("states", model.n_layers, last)
    return last
