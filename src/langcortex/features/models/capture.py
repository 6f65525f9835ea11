"""Hidden states, heads, MLPs and attention maps, captured by hooks while a model runs.

Numbers follow HuggingFace's ``hidden_states``: layer 0 is what enters the first block (the embeddings, scaled and
normalised as the model does), layer n the output of block n, the last layer after the final normalisation. Heads,
MLPs and attention maps of block n, whose output is layer n, have the number n: they count from 1.
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
"""Called with a kind, a layer's number and a tensor (texts, tokens, features), once per batch."""

_OUTPUT_PROJECTIONS = (
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


def find_blocks(model: LanguageModel) -> Sequence[Any]:
    """Return the blocks of a model, in order.

    Raises
    ------
    ModelError : the model does not consist of a list of blocks
    """
    import torch

    lists = [
        (name, module)
        for name, module in model.body.named_modules()
        if isinstance(module, torch.nn.ModuleList) and len(module) == model.n_layers
    ]
    # a model of images and text has blocks for each
    lists.sort(key=lambda named: ("vision" in named[0] or "audio" in named[0], named[0].count(".")))
    if not lists:
        raise ModelError(
            f"'{model.name}' does not consist of a list of {model.n_layers} blocks, so its layers cannot be captured. Use another model."
        )
    blocks: Sequence[Any] = lists[0][1]
    return blocks


def find_output_projection(model: LanguageModel, number: int) -> Any:
    """Return the attention output projection of block `number` (from 1), whose input are the concatenated heads."""
    return _find_module(model, number, _OUTPUT_PROJECTIONS, "the output projection of its attention")


def head_parts(model: LanguageModel, layer: int, values: np.ndarray) -> np.ndarray:
    """Project the output of each head to the width of the model, by its columns of the output projection.

    The attention of block `layer` writes  Σ_h parts[:, h] + bias  into the residual stream.

    Parameters
    ----------
    layer : 1 … n_layers
    values : (n_rows, n_heads · head_dim), as extracted under ``"{model}/heads-07"``

    Returns
    -------
    parts : (n_rows, n_heads, width) float32
    """
    weight = _projection_matrix(model, layer)
    n_heads = model.n_heads
    if values.ndim != 2 or values.shape[1] != weight.shape[1]:
        raise ModelError(
            f"Heads of layer {layer} of '{model.name}' have {weight.shape[1]} columns; these values have shape {values.shape}."
        )
    by_head = values.reshape(len(values), n_heads, -1)
    weight_by_head = weight.reshape(weight.shape[0], n_heads, -1)
    parts: np.ndarray = np.einsum("nhd,whd->nhw", by_head, weight_by_head, optimize=True).astype(np.float32)
    return parts


def _projection_matrix(model: LanguageModel, layer: int) -> np.ndarray:
    """Return an output projection as (width, n_heads · head_dim), by applying it: it may be quantised or transposed."""
    import torch

    projection = find_output_projection(model, layer)
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


def _find_module(model: LanguageModel, number: int, paths: Sequence[str], role: str) -> Any:
    """Return the first module of a block at one of the paths."""
    block = find_blocks(model)[number - 1]
    for path in paths:
        module = block
        for name in path.split("."):
            module = getattr(module, name, None)
        if module is not None:
            return module
    raise ModelError(
        f"A block of '{model.name}' has {role} in an unknown place (it is a {type(block).__name__}). "
        "Take hidden states only."
    )


def _find_attention(model: LanguageModel, number: int) -> Any:
    paths = ("self_attn", "attn.attention", "attn", "attention.self", "self_attention", "attention")
    return _find_module(model, number, paths, "its attention")


@contextlib.contextmanager
def capture_states(
    model: LanguageModel, numbers: Mapping[str, Sequence[int]], consume: Consume
) -> Iterator[None]:
    """Pass tensors to `consume` while the model runs; hooks are removed afterwards.

    Parameters
    ----------
    numbers : kind → layers; the last layer of "states" comes from the model's output, see `read_batch`
    consume : called once per batch for each kind and layer
    """
    handles: list[Any] = []
    blocks = find_blocks(model)
    try:
        for number in numbers.get("states", ()):
            if number == 0:
                handles.append(
                    blocks[0].register_forward_pre_hook(_input_hook(consume, "states", 0), with_kwargs=True)
                )
            elif number < len(blocks):
                handles.append(
                    blocks[number - 1].register_forward_hook(_output_hook(consume, "states", number))
                )
        for number in numbers.get("heads", ()):
            module = find_output_projection(model, number)
            handles.append(
                module.register_forward_pre_hook(_input_hook(consume, "heads", number), with_kwargs=True)
            )
        for number in numbers.get("mlp", ()):
            module = _find_module(model, number, _MLPS, "its MLP")
            handles.append(module.register_forward_hook(_output_hook(consume, "mlp", number)))
        for number in numbers.get("attention", ()):
            handles.append(_find_attention(model, number).register_forward_hook(_maps_hook(consume, number)))
        with _eager_attention(model) if numbers.get("attention") else contextlib.nullcontext():
            yield
    finally:
        for handle in handles:
            handle.remove()


def _input_hook(consume: Consume, kind: str, number: int) -> Callable[..., None]:
    def hook(module: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        consume(kind, number, args[0] if args else kwargs["hidden_states"])

    return hook


def _output_hook(consume: Consume, kind: str, number: int) -> Callable[..., None]:
    def hook(module: Any, args: tuple[Any, ...], output: Any) -> None:
        consume(kind, number, output[0] if isinstance(output, tuple) else output)

    return hook


def _maps_hook(consume: Consume, number: int) -> Callable[..., None]:
    def hook(module: Any, args: tuple[Any, ...], output: Any) -> None:
        parts = output if isinstance(output, tuple) else (output,)
        maps = next((p for p in parts[1:] if getattr(p, "ndim", 0) == 4), None)
        if maps is None:
            raise ModelError(
                f"{type(module).__name__} returns no attention maps. Leave 'attention' out of features.take."
            )
        consume("attention", number, maps)

    return hook


@contextlib.contextmanager
def _eager_attention(model: LanguageModel) -> Iterator[None]:
    """Switch to the implementation of attention that computes maps; the fast ones do not."""
    body = model.body
    before = getattr(body.config, "_attn_implementation", None)
    if before == "eager":
        yield
        return
    _set_attention(body, "eager")
    try:
        yield
    finally:
        _set_attention(body, before)


def _set_attention(body: Any, implementation: str | None) -> None:
    if hasattr(body, "set_attn_implementation"):
        body.set_attn_implementation(implementation)
    else:
        body.config._attn_implementation = implementation


def read_batch(
    model: LanguageModel, texts: Sequence[list[int]], numbers: Mapping[str, Sequence[int]], consume: Consume
) -> Any:
    """Run one batch, padded on the right, and pass the captured tensors to `consume`.

    Padding changes nothing: a causal model does not attend to the right, and an encoder uses the mask.

    Parameters
    ----------
    texts : tokens of each text
    numbers, consume : see `capture_states`

    Returns
    -------
    states of the last layer, (texts, tokens, width), on the model's device
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
    with torch.inference_mode(), capture_states(model, numbers, consume):
        output = model.body(input_ids=ids.to(device), attention_mask=mask.to(device), **options)
        last = output.last_hidden_state
        if model.n_layers in numbers.get("states", ()):
            consume("states", model.n_layers, last)
    return last
