"""Loading of language models: trained or untrained, quantised or not, on one device, several, or from disk."""

from __future__ import annotations

import contextlib
import copy
import importlib.util
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from langcortex.cache import digest
from langcortex.errors import ModelError, SettingsError
from langcortex.features.models.completeness import check_folder, check_tensors
from langcortex.features.models.memory import ModelShape, compute_shape, require_memory
from langcortex.features.models.packages import require_packages
from langcortex.features.models.weights import (
    cache_folder,
    digest_file,
    import_transformers,
    load_pretrained,
    locate_model,
    locate_weights,
)

DTYPES = ("float32", "bfloat16", "float16")
QUANTISATIONS = ("4bit", "8bit")
DEFAULT_POSITIONS = 2048  # where a configuration does not say how many there are


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

    @cached_property
    def max_tokens(self) -> int:
        """The length of the longest text that the model can read, in tokens."""
        limit = getattr(text_config(self.body.config), "max_position_embeddings", None)
        return usable_positions(self.body, int(limit) if limit else DEFAULT_POSITIONS)

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


def read_model_shape(
    source: str | Path, revision: str | None = None, *, trust_remote_code: bool = False
) -> ModelShape:
    """Read the size of a model from its configuration, without loading its weights.

    Raises
    ------
    ModelError : as `load_model`
    """
    require_packages()
    source = str(source)
    where, options = _config_source(source, revision, trust_remote_code)
    config = load_pretrained(import_transformers().AutoConfig, where, source, **options)
    shape = compute_shape(text_config(config))
    return replace(shape, max_tokens=count_positions(config))


def load_tokenizer(source: str, revision: str | None = None, *, trust_remote_code: bool = False) -> Any:
    """Load the tokenizer of a model, without its weights.

    Raises
    ------
    ModelError : as `load_model`
    """
    require_packages()
    where, options = _config_source(source, revision, trust_remote_code)
    return _load_tokenizer(where, source, options)


def check_model_files(source: str, weights: bool = True) -> None:
    """Check that a model on disk has its configuration, tokenizer and weights; hub names and .gguf files are left alone.

    Raises
    ------
    ModelError : something is missing or breaks off
    """
    path = locate_model(source)
    if path is not None and path.is_dir():
        check_folder(path, weights)


def _config_source(source: str, revision: str | None, trust_remote_code: bool) -> tuple[str, dict[str, Any]]:
    """Return where configuration and tokenizer are, and the options of their loaders; a .gguf file is not converted."""
    path = locate_model(source)
    if path is None:
        return source, {"revision": revision, "trust_remote_code": trust_remote_code}
    if path.is_dir():
        return str(path), {"revision": revision, "trust_remote_code": trust_remote_code}
    return str(path.parent), {"gguf_file": path.name}


def count_positions(config: Any) -> int:
    """Return the length of the longest text that a model can read, in tokens, from its configuration.

    Encoders like RoBERTa count positions from the one after the padding token's: of 514 positions, 512 can be used. So
    the model's embeddings are made, without memory, and asked.
    """
    import torch

    text = text_config(config)
    limit = int(getattr(text, "max_position_embeddings", None) or DEFAULT_POSITIONS)
    small = copy.deepcopy(text)
    small.num_hidden_layers = 1
    with (
        contextlib.suppress(Exception),
        torch.device("meta"),
    ):  # models of other kinds are not made from their text part
        return usable_positions(import_transformers().AutoModel.from_config(small), limit)
    return limit


def usable_positions(body: Any, limit: int) -> int:
    """Return how many of `limit` positions a text can have: fewer where they are counted from a padding token."""
    import torch

    for name, module in body.named_modules():
        if isinstance(module, torch.nn.Embedding) and name.endswith("position_embeddings"):
            first = 0 if module.padding_idx is None else int(module.padding_idx) + 1
            return min(limit, int(module.num_embeddings) - first)
    return limit


def load_model(
    source: str | Path,
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
    require_packages()
    source = str(source)
    transformers = import_transformers()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    name = name or source.rstrip("/").split("/")[-1].removesuffix(".gguf")
    check_options(dtype, device, quantization, untrained_seed)
    where, weights_digest = locate_weights(source, untrained_seed is None)
    options = {"revision": revision, "trust_remote_code": trust_remote_code}
    tokenizer = _load_tokenizer(where, source, options)
    config = load_pretrained(transformers.AutoConfig, where, source, **options)
    device = choose_device(device)
    require_memory(name, compute_shape(text_config(config)), dtype, quantization, device)
    if untrained_seed is None:
        placement = _placement_options(dtype, device, quantization, memory)
        loader = transformers.AutoModelForCausalLM if head else transformers.AutoModel
        model, info = load_pretrained(
            loader,
            where,
            source,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            **placement,
            **options,
        )
        check_tensors(name, model, info)
        if quantization is None and device not in ("spread", "offload"):
            model = model.to(device)
    else:
        model = _initialise(config, untrained_seed, dtype, head).to(device)
    body = (model.base_model if head else model).eval()
    commit = weights_digest or _hub_version(body.config) or revision
    if commit is None:
        raise ModelError(f"'{source}' has no revision that could be recorded. Set one, or use a folder.")
    version = _version(_with_remote_code(commit, body, tokenizer), untrained_seed, dtype, quantization)
    return LanguageModel(name, body, tokenizer, version, model.eval() if head else None)


def _hub_version(config: Any) -> str | None:
    """Return the commit of a model from the hub with a digest of its weights as they lie in the cache."""
    commit = getattr(config, "_commit_hash", None)
    if not commit:
        return None
    from huggingface_hub import try_to_load_from_cache

    source = str(config._name_or_path)
    config_file = try_to_load_from_cache(source, "config.json", revision=commit)
    folder = Path(config_file).parent if isinstance(config_file, str) else None
    if folder is None:
        return str(commit)
    files = sorted(p for kind in ("*.safetensors", "*.bin") for p in folder.glob(kind) if p.is_file())
    contents = digest([[p.name, digest_file(p)] for p in files])
    return f"{commit}-{contents[:16]}" if files else str(commit)


def _with_remote_code(version: str, *objects: Any) -> str:
    """Add a digest of the code that came with a model, where it is not the code of transformers."""
    modules = {type(x).__module__ for x in objects if type(x).__module__.startswith("transformers_modules")}
    files = sorted(str(sys.modules[name].__file__) for name in modules)
    return f"{version}-code-{digest([digest_file(Path(f)) for f in files])[:16]}" if files else version


def _load_tokenizer(where: str, source: str, options: Mapping[str, Any]) -> Any:
    transformers = import_transformers()
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


def check_options(dtype: str, device: str, quantization: str | None, untrained_seed: int | None) -> None:
    """Check that the options of `load_model` exist, go together, and have their packages.

    Raises
    ------
    ModelError, SettingsError : they do not
    """
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


def choose_device(device: str) -> str:
    """Return the device that "auto" is, or the same device where it is there.

    Raises
    ------
    ModelError : there is no such GPU
    """
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
        transformers = import_transformers()
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

    transformers = import_transformers()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        body = transformers.AutoModel.from_config(config)
        if not head:
            return body.to(getattr(torch, dtype))
        model = transformers.AutoModelForCausalLM.from_config(config)
    setattr(model, model.base_model_prefix, body)
    model.tie_weights()
    return model.to(getattr(torch, dtype))
