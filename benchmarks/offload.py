"""Does an 8B-shaped model go through a small machine? Random weights, read from disk block by block.

Run it with: python benchmarks/offload.py FOLDER [--blocks 32] [--memory 6] [--sentences 8]. FOLDER takes 16 GB (0.44 GB
a block and 1 GB of embeddings; the output head is left out). The second line is the same work killed half-way and
started again: runs that were finished are found again.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

SHAPE = {
    "vocab_size": 128256, "hidden_size": 4096, "intermediate_size": 14336, "num_attention_heads": 32,
    "num_key_value_heads": 8, "max_position_embeddings": 8192, "rope_theta": 500000.0, "bos_token_id": 0,
}  # fmt: skip


def write_model(folder: Path, n_blocks: int) -> None:
    """Write LLaMA-3.1-8B's shape with random weights, a file a block, never more than one block in memory."""
    import torch
    import transformers
    from safetensors.torch import save_file
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    if (folder / "model.safetensors.index.json").is_file():
        return
    folder.mkdir(parents=True, exist_ok=True)
    core = Tokenizer(models.BPE())
    core.pre_tokenizer, core.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<s>"], initial_alphabet=alphabet, show_progress=False
    )
    core.train_from_iterator(["the little words of a story"], trainer)
    transformers.PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>").save_pretrained(folder)
    config = transformers.LlamaConfig(num_hidden_layers=n_blocks, **SHAPE, architectures=["LlamaModel"])
    config.save_pretrained(folder)
    torch.manual_seed(0)
    width, inner, keys = 4096, 14336, 1024
    sizes = {
        "self_attn.q_proj": (width, width), "self_attn.k_proj": (keys, width), "self_attn.v_proj": (keys, width),
        "self_attn.o_proj": (width, width), "mlp.gate_proj": (inner, width), "mlp.up_proj": (inner, width),
        "mlp.down_proj": (width, inner),
    }  # fmt: skip
    where: dict[str, str] = {}

    def write(name: str, tensors: dict[str, torch.Tensor]) -> None:
        save_file(tensors, folder / name, metadata={"format": "pt"})
        where.update(dict.fromkeys(tensors, name))

    def draw(*size: int) -> torch.Tensor:
        return (0.02 * torch.randn(*size)).to(torch.bfloat16)

    ones = torch.ones(width, dtype=torch.bfloat16)
    block = {f"{part}.weight": draw(*size) for part, size in sizes.items()}
    for i in range(n_blocks):
        # every block is the first one with its rows turned: drawing 8 billion numbers takes minutes
        turned = {f"layers.{i}.{k}": v.roll(i, dims=0).contiguous() for k, v in block.items()}
        norms = {f"layers.{i}.{k}_layernorm.weight": ones.clone() for k in ("input", "post_attention")}
        write(f"block-{i:02d}.safetensors", turned | norms)
    write("rest.safetensors", {"embed_tokens.weight": draw(SHAPE["vocab_size"], width), "norm.weight": ones})
    index = {"metadata": {"total_size": 0}, "weight_map": where}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def read(folder: Path, memory: float, n_sentences: int) -> None:
    """Extract all layers of two runs, and say how long it took and how much memory was held."""
    import resource

    from langcortex import extract, load_model
    from langcortex.cache import Store
    from langcortex.stimulus.story import make_story

    words = {
        f"run-{i}": [*["the", "little", "words", "of", "a", "story"], "end."] * n_sentences for i in range(2)
    }
    times = {run: np.arange(float(len(w))) for run, w in words.items()}
    story = make_story(words, times, {run: np.ones(len(w)) for run, w in words.items()})
    began = time.perf_counter()
    model = load_model(str(folder), "8b", dtype="bfloat16", device="offload", memory=memory)
    loaded = time.perf_counter() - began
    places = list(model.body.hf_device_map.values())

    def say(pace: object) -> None:
        print(pace, flush=True)

    layers = extract(story, model, store=Store(folder / "store"), pace=say)
    last = layers[f"8b/layer-{model.n_layers:02d}"].values
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(
        f"loaded in {loaded:.0f} s ({places.count('disk')} parts on disk), read in {time.perf_counter() - began - loaded:.0f} s, "
        f"at most {most:.1f} GB held, finite: {bool(np.isfinite(last).all())}, {len(layers)} layers of {last.shape}"
    )


def main() -> None:
    """Write the model, read with a kill after the first run, and read again."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--blocks", type=int, default=32)
    parser.add_argument("--memory", type=float, default=6.0)
    parser.add_argument("--sentences", type=int, default=8)
    parser.add_argument("--read", action="store_true", help="only read, in this process")
    arguments = parser.parse_args()
    if arguments.read:
        read(arguments.folder, arguments.memory, arguments.sentences)
        return
    write_model(arguments.folder, arguments.blocks)
    command = [sys.executable, __file__, str(arguments.folder), "--read"]
    command += ["--memory", str(arguments.memory), "--sentences", str(arguments.sentences)]
    first = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert first.stdout is not None
    print("killed after:", first.stdout.readline().strip())  # the first run is kept
    first.kill()
    first.wait()
    subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
