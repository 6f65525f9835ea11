"""Loading of language models: trained or untrained, quantised or not, on one device, several, or from disk."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from langcortex.errors import ModelError, SettingsError
from langcortex.features.models.memory import ModelShape, compute_shape, require_memory
from langcortex.features.models.weights import (
    cache_folder,
    find_package_file,
    load_pretrained,
    locate_weights,
)

DTYPES = ("float32", "bfloat16", "float16")
QUANTISATIONS = ("4bit", "8bit")


@dataclass(frozen=True, eq=False)
class LanguageModel:
    """A loaded model, its tokenizer and a name of its weights.

    Attributes
    ----------
    name : of the model in results
    body : the transformer without its output head
    tokenizer : a fast tokenizer, which returns the characters of every token
    revision : a digest of the weights and the tokenizer, or the hub's commit
    head : the model with its output head, around the same `body`; None where it was loaded without
    """

    name: str
    body: Any
    tokenizer: Any
    revision: str
    head: Any = None

    @property
    def n_layers(self) -> int:
        """The number of blocks; there are n_layers + 1 layers of hidden states."""
        return int(text_config(self.body.config).num_hidden_layers)

    @property
    def width(self) -> int:
        """The number of features of a hidden state."""
        return int(text_config(self.body.config).hidden_size)

    @property
    def n_heads(self) -> int:
        """The number of attention heads of a block (query heads, where keys and values are shared)."""
        return int(text_config(self.body.config).num_attention_heads)

    @property
    def max_tokens(self) -> int:
        """The length of the longest text that the model can read, in tokens."""
        limit = getattr(text_config(self.body.config), "max_position_embeddings", None)
        return int(limit) if limit else 2048

    @cached_property
    def is_causal(self) -> bool:
        """Whether tokens attend only to the tokens before them; in encoders such as BERT they attend to both sides."""
        marks = {bool(m.is_causal) for m in self.body.modules() if hasattr(m, "is_causal")}
        return not marks or True in marks

    @property
    def device(self) -> Any:
        """The device of the input, also where weights are on others."""
        import torch

        hook = getattr(self.body, "_hf_hook", None)
        target = getattr(hook, "execution_device", None)
        if target is not None:
            return torch.device(target)
        device = next(self.body.parameters()).device
        return torch.device("cpu") if device.type == "meta" else device


def read_model_shape(source: str, revision: str | None = None) -> ModelShape:
    """Read the size of a model from its configuration, without loading its weights.

    Raises
    ------
    ModelError : as `load_model`
    """
    import transformers

    if source.startswith("package:"):
        source = str(find_package_file(source.removeprefix("package:")))
    path = Path(source).expanduser()
    options: dict[str, Any] = {"revision": revision}
    where = source
    if source.endswith(".gguf"):
        if not path.is_file():
            raise ModelError(f"The model file {path} does not exist.")
        where, options = str(path.parent), {"gguf_file": path.name}
    elif path.is_dir():
        where = str(path)
    elif source.startswith((".", "/", "~")):
        raise ModelError(f"The model folder {path} does not exist.")
    return compute_shape(text_config(load_pretrained(transformers.AutoConfig, where, source, **options)))


def load_model(
    source: str,
    name: str | None = None,
    *,
    revision: str | None = None,
    untrained_seed: int | None = None,
    dtype: str = "float32",
    device: str = "auto",
    quantization: str | None = None,
    memory: float | None = None,
    head: bool = False,
    trust_remote_code: bool = False,
) -> LanguageModel:
    """Load a language model.

    Parameters
    ----------
    source : a folder, a name on the HuggingFace hub, a .gguf file, or ``"package:NAME/FILE.gguf"`` for a file
        inside an installed Python package (a .gguf is converted once into the cache folder)
    name : of the model in results; the last part of `source` when None
    revision : the hub's commit or tag
    untrained_seed : replace the weights by a fresh random initialisation of the same configuration
    dtype : "float32", "bfloat16" or "float16"
    device : "auto" (a GPU if there is one), "cpu", "cuda", "cuda:1", "spread" (over all GPUs) or "offload" (blocks
        that do not fit into memory are read from disk when they are needed, which is slow)
    quantization : "4bit" or "8bit", through the package bitsandbytes; None leaves the weights as they are
    memory : gigabytes of main memory for weights with "spread" and "offload"; all free memory when None
    head : load the output head too, which surprisal and entropy need
    trust_remote_code : run code that comes with the model; only if you have read it

    Raises
    ------
    ModelError : the model is neither on disk nor reachable, has no fast tokenizer, or does not fit
    SettingsError : an unknown setting, or two that exclude each other
    """
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    name = name or source.rstrip("/").split("/")[-1].removesuffix(".gguf")
    _check_options(dtype, device, quantization, untrained_seed)
    where, weights_digest = locate_weights(source)
    options = {"revision": revision, "trust_remote_code": trust_remote_code}
    tokenizer = _load_tokenizer(where, source, options)
    config = load_pretrained(transformers.AutoConfig, where, source, **options)
    device = _choose_device(device)
    require_memory(name, compute_shape(text_config(config)), dtype, quantization, device)
    if untrained_seed is None:
        placement = _placement_options(dtype, device, quantization, memory)
        loader = transformers.AutoModelForCausalLM if head else transformers.AutoModel
        model = load_pretrained(loader, where, source, **placement, **options)
        if quantization is None and device not in ("spread", "offload"):
            model = model.to(device)
    else:
        model = _initialise(config, untrained_seed, dtype, head).to(device)
    body = (model.base_model if head else model).eval()
    commit = weights_digest or getattr(body.config, "_commit_hash", None) or revision
    if commit is None:
        raise ModelError(f"'{source}' has no revision that could be recorded. Set one, or use a folder.")
    version = _version(commit, untrained_seed, dtype, quantization)
    return LanguageModel(name, body, tokenizer, version, model.eval() if head else None)


def _load_tokenizer(where: str, source: str, options: Mapping[str, Any]) -> Any:
    import transformers

    tokenizer = load_pretrained(transformers.AutoTokenizer, where, source, **options)
    if not tokenizer.is_fast:
        raise ModelError(
            f"The tokenizer of '{source}' does not return the characters of its tokens. Use a model with a fast tokenizer."
        )
    return tokenizer


def _version(commit: str, untrained_seed: int | None, dtype: str, quantization: str | None) -> str:
    """Return the revision of a loaded model, which is part of the name of its results."""
    untrained = f"-untrained-{untrained_seed}" if untrained_seed is not None else ""
    quantised = f"-{quantization}" if quantization else ""
    return f"{commit}{untrained}-{dtype}{quantised}"


def text_config(config: Any) -> Any:
    """Return the part of a configuration that is about text."""
    return config.get_text_config() if hasattr(config, "get_text_config") else config


def _check_options(dtype: str, device: str, quantization: str | None, untrained_seed: int | None) -> None:
    if dtype not in DTYPES:
        raise SettingsError(f"A model runs in float32, bfloat16 or float16, not '{dtype}'.")
    if quantization is not None and quantization not in QUANTISATIONS:
        raise SettingsError(f"Weights are quantised to '4bit' or '8bit', not '{quantization}'.")
    if device.split(":")[0] not in ("auto", "cpu", "cuda", "mps", "xpu", "spread", "offload"):
        raise SettingsError(
            f"A model runs on 'auto', 'cpu', 'cuda', 'cuda:1', 'spread' or 'offload', not on '{device}'."
        )
    if quantization and untrained_seed is not None:
        raise SettingsError(
            "Untrained weights cannot be quantised. Leave quantization out for this model, or use dtype = 'bfloat16'."
        )
    if untrained_seed is not None and device in ("spread", "offload"):
        raise SettingsError(
            f"Untrained weights are drawn in memory, so device = '{device}' has nothing to read. Use 'auto' or 'cpu'."
        )
    if quantization and importlib.util.find_spec("bitsandbytes") is None:
        raise ModelError(
            f"quantization = '{quantization}' needs the package bitsandbytes. Run: pip install 'langcortex[quantised]'"
        )
    if device in ("spread", "offload") and importlib.util.find_spec("accelerate") is None:
        raise ModelError(f"device = '{device}' needs the package accelerate. Run: pip install accelerate")


def _choose_device(device: str) -> str:
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda"):
        n = torch.cuda.device_count()
        number = device.partition(":")[2] or "0"
        if not number.isdigit() or int(number) >= n:
            reason = f"there are {n}, counted from 0" if n else "this machine has none that torch can use"
            raise ModelError(f"There is no GPU '{device}': {reason}. Use device = 'auto' or 'cpu'.")
    return device


def _placement_options(
    dtype: str, device: str, quantization: str | None, memory: float | None
) -> dict[str, Any]:
    """Return options that place weights on their device while they are loaded, without a second copy."""
    import torch

    out: dict[str, Any] = {"dtype": getattr(torch, dtype)}
    if quantization:
        import transformers

        kind = (
            {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": out["dtype"]}
            if quantization == "4bit"
            else {"load_in_8bit": True}
        )
        out["quantization_config"] = transformers.BitsAndBytesConfig(**kind)
    if device not in ("spread", "offload"):
        # without accelerate a model is loaded into main memory first
        if device != "cpu" and importlib.util.find_spec("accelerate") is not None:
            out["device_map"] = {"": device}
        return out
    out["device_map"] = "auto"
    if device == "offload":
        out["offload_folder"] = str(cache_folder() / "offload")
        out["offload_state_dict"] = True
    if memory is not None:
        free = {i: torch.cuda.mem_get_info(i)[0] for i in range(torch.cuda.device_count())}
        out["max_memory"] = {**free, "cpu": int(memory * 1e9)}
    return out


def _initialise(config: Any, seed: int, dtype: str, head: bool) -> Any:
    """Initialise weights at random; those of the body are the same with and without a head."""
    import torch
    import transformers

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        body = transformers.AutoModel.from_config(config)
        if not head:
            return body.to(getattr(torch, dtype))
        model = transformers.AutoModelForCausalLM.from_config(config)
    setattr(model, model.base_model_prefix, body)
    model.tie_weights()
    return model.to(getattr(torch, dtype))
