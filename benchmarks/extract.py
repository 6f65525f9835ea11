"""How long does extraction take, and how much memory, against what people do? One model, CPU or GPU.

Run it with: python benchmarks/extract.py [--quick] [--model SOURCE] [--threads N]. Each way runs in a process of its
own, the ways taking turns, and the least disturbed of the rounds counts. Without --model a random SmolLM2-shaped model is
drawn (30 blocks of width 576), with a small byte-level tokenizer: the numbers do not depend on what it knows.

Two tasks: sentences (each alone, all layers) and a section (a running context of 512 tokens, all layers, as long as ten
minutes of speech). Four ways:

  langcortex   extract(), into a store on disk
  bare         the same batches through the model and nothing taken: the least that any way can cost
  loop         output_hidden_states=True, one sentence (or one window) after the other, words averaged
  per word     one pass a word, its whole context read again (timed on some words, and scaled)
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

WORDS = [
    "the",
    "of",
    "and",
    "to",
    "in",
    "a",
    "is",
    "that",
    "for",
    "it",
    "was",
    "on",
    "are",
    "as",
    "with",
    "his",
    "they",
    "be",
    "at",
    "one",
    "have",
    "this",
    "from",
    "by",
    "hot",
    "word",
    "but",
    "what",
    "some",
    "we",
    "can",
]
WAYS = ("langcortex", "bare", "loop", "per word")


def make_model(folder: Path, blocks: int) -> None:
    """Draw a SmolLM2-shaped model and train a small tokenizer."""
    import torch
    import transformers
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator([" ".join(WORDS)], trainer)
    transformers.PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>").save_pretrained(folder)
    config = transformers.LlamaConfig(
        vocab_size=49152,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=blocks,
        num_attention_heads=9,
        num_key_value_heads=3,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    transformers.LlamaForCausalLM(config).save_pretrained(folder)


def make_told(task: str, quick: bool) -> object:
    """Make up a story: sentences of 4 to 24 words, three words a second."""
    from langcortex.stimulus.story import make_story

    rng = np.random.default_rng(0)
    n_sentences = {"sentences": 60 if quick else 1000, "section": 25 if quick else 130, "warm-up": 2}[task]
    words, sentence = [], []
    for i in range(n_sentences):
        n = int(rng.integers(4, 25))
        words += rng.choice(WORDS, n).tolist()
        sentence += [i] * n
    onset = np.arange(len(words)) / 3
    return make_story({"r": words}, {"r": onset}, {"r": np.full(len(words), 0.3)}, sentence={"r": sentence})


def texts_of(story, model, context):
    """Cut a story into the texts that extract() would read."""
    from langcortex.features.models.tokens import cut_passages, cut_windows, encode_passage, make_frame

    frame = make_frame(model.tokenizer, model.name)
    read = [
        encode_passage(story, a, b, model.tokenizer, model.name, frame)
        for a, b in cut_passages(story, context)
    ]
    return [w for p in read for w in cut_windows(p, context, model.max_tokens)]


def way_langcortex(story, model, context, quick):
    """Extract as a user would."""
    from langcortex import extract
    from langcortex.cache import Store

    with tempfile.TemporaryDirectory() as folder:
        layers = extract(story, model, context=context, store=Store(Path(folder)))
        return float(len(layers))


def way_bare(story, model, context, quick):
    """Run the same batches and take nothing."""
    from langcortex.features.models.capture import read_batch
    from langcortex.features.models.tokens import make_batches

    windows = texts_of(story, model, context)
    for batch in make_batches([len(w.ids) for w in windows], 2048):
        read_batch(model, [windows[i].ids for i in batch], {}, lambda *rest: None)
    return 1.0


def way_loop(story, model, context, quick):
    """Read one text after the other with all hidden states, and average each word's tokens."""
    import torch

    kept = []
    with torch.inference_mode():
        for w in texts_of(story, model, context):
            out = model.body(
                input_ids=torch.tensor([w.ids], device=model.device),
                output_hidden_states=True,
                use_cache=False,
            )
            states = torch.stack([h[0] for h in out.hidden_states]).float().cpu().numpy()
            pairs = w.pairs[w.new]
            for word in np.unique(pairs[:, 0]):
                kept.append(states[:, pairs[pairs[:, 0] == word, 1]].mean(axis=1))
    return float(len(np.stack(kept)))


def way_per_word(story, model, context, quick):
    """Read every word's context again; some words stand for all."""
    import torch

    windows = [(w, p) for w in texts_of(story, model, context) for p in w.pairs[w.new][:, 1]]
    some = np.random.default_rng(1).permutation(len(windows))[: 8 if quick else 60]
    kept = []
    with torch.inference_mode():
        for i in some:
            w, place = windows[i]
            ids = w.ids[: place + 1]
            out = model.body(
                input_ids=torch.tensor([ids], device=model.device), output_hidden_states=True, use_cache=False
            )
            kept.append(torch.stack([h[0, -1] for h in out.hidden_states]).float().cpu().numpy())
    return len(story) / len(some)


class Peak:
    """The most memory held while something runs, in MB: sampled, because what loading took does not count."""

    def __enter__(self) -> "Peak":
        self.most, self.going = 0.0, True
        self.thread = threading.Thread(target=self._watch)
        self.before = self._now()
        self.thread.start()
        return self

    def __exit__(self, *rest: object) -> None:
        self.going = False
        self.thread.join()
        self.extra = max(0.0, self.most - self.before)

    def _watch(self) -> None:
        while self.going:
            self.most = max(self.most, self._now())
            time.sleep(0.002)

    def _now(self) -> float:
        import torch

        if torch.cuda.is_available():
            return torch.cuda.memory_allocated() / 1e6
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e6


def run_one(arguments: argparse.Namespace) -> None:
    """Time one way of one task, in this process."""
    import torch

    from langcortex import load_model

    torch.set_num_threads(arguments.threads)
    model = load_model(arguments.model, "m", dtype=arguments.dtype)
    story = make_told(arguments.task, arguments.quick)
    context = "sentence" if arguments.task == "sentences" else 512
    way = {"langcortex": way_langcortex, "bare": way_bare, "loop": way_loop, "per word": way_per_word}[
        arguments.way
    ]
    way_bare(make_told("warm-up", True), model, context, True)
    with Peak() as memory:
        began, used = time.perf_counter(), time.process_time()
        scale = way(story, model, context, arguments.quick)
        seconds, used = time.perf_counter() - began, time.process_time() - used
    times = scale if arguments.way == "per word" else 1.0
    pooled = 4 * len(story) * model.width * (model.n_layers + 1) / 1e6
    found = {"seconds": seconds * times, "cpu": used * times, "extra": memory.extra}
    print(json.dumps({**found, "pooled": pooled, "words": len(story)}))


def main() -> None:
    """Run every way in turn and print ratios."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument(
        "--quick", action="store_true", help="a few sentences and 6 blocks: seconds, not minutes"
    )
    parser.add_argument("--rounds", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--task", default="")
    parser.add_argument("--way", default="")
    arguments = parser.parse_args()
    if arguments.way:
        run_one(arguments)
        return
    with tempfile.TemporaryDirectory() as folder:
        source = arguments.model
        if not source:
            make_model(Path(folder), 6 if arguments.quick else 30)
            source = folder
        rounds = arguments.rounds or (1 if arguments.quick else 3)
        for task in [arguments.task] if arguments.task else ["sentences", "section"]:
            report(task, source, rounds, arguments)


def report(task: str, source: str, rounds: int, arguments: argparse.Namespace) -> None:
    """Run one task's ways in turn, each round in a new process, and print the least disturbed."""
    found: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    for _ in range(rounds):
        for way in WAYS:
            command = [sys.executable, __file__, "--model", source, "--task", task, "--way", way]
            command += ["--threads", str(arguments.threads), "--dtype", arguments.dtype]
            command += ["--quick"] if arguments.quick else []
            said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            found[way].append(json.loads(said.splitlines()[-1]))
    first = found["langcortex"][0]
    print(f"\n{task}: {first['words']:.0f} words; the pooled result holds {first['pooled']:.0f} MB")
    print(
        f"{'':12}{'seconds':>10}{'of bare':>10}{'CPU s':>10}{'of bare':>10}{'extra MB':>10}{'of pooled':>10}"
    )
    # the least disturbed round counts: others may use the machine
    least = {way: {k: min(one[k] for one in rounds) for k in rounds[0]} for way, rounds in found.items()}
    for way in WAYS:
        one, bare = least[way], least["bare"]
        print(
            f"{way:12}{one['seconds']:10.1f}{one['seconds'] / bare['seconds']:10.2f}{one['cpu']:10.1f}"
            f"{one['cpu'] / bare['cpu']:10.2f}{one['extra']:10.0f}{one['extra'] / first['pooled']:10.2f}"
        )


if __name__ == "__main__":
    main()
