"""Shared by all tests: one thread, a cache of their own, tiny models, a small story, and the real data's folder."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # before numpy and torch are loaded: two workers share two cores
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import numpy as np
import pandas as pd
import pytest
from hypothesis import settings

from langcortex.brain.space import Space
from langcortex.design.design import Design
from langcortex.stimulus.story import Story, make_story

# The same examples at every run; `pytest --hypothesis-profile=default` draws new ones.
settings.register_profile("same", derandomize=True)
settings.load_profile("same")

TRAINING_TEXT = [
    "The cat sat on the mat. The dog sat on the log.",
    "A little prince lived on a planet hardly bigger than himself, and he needed a friend.",
    "It's not what they've said; she'd rather wait until we're there, and I'll see what isn't so.",
    "The river was wide and slow. Nobody knew where the old boat had gone!",
    "Why do the stars shine? To let everyone find their own one day.",
]


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Keep converted models and digests of the tests away from the user's."""
    folder = tmp_path_factory.mktemp("cache")
    before = os.environ.get("LANGCORTEX_CACHE")
    os.environ["LANGCORTEX_CACHE"] = str(folder)
    yield folder
    if before is None:
        del os.environ["LANGCORTEX_CACHE"]
    else:
        os.environ["LANGCORTEX_CACHE"] = before


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Give the folder of real data, which is no part of the project."""
    named = os.environ.get("LANGCORTEX_SHARED_DATA")
    folder = Path(named) if named else Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"the real data are absent: no folder {folder} (set LANGCORTEX_SHARED_DATA)")
    return folder


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20251123)


@pytest.fixture(scope="session")
def story() -> Story:
    """Three runs of plain sentences, 0.4 s a word and 0.6 s between sentences."""
    texts = {
        "run-1": "The cat sat on the mat. A dog saw it. Nobody knew why!",
        "run-2": "The river was wide and slow. It's not what they said. Why do stars shine?",
        "run-3": "A little prince lived on a planet. He needed a friend. The old boat had gone.",
    }
    words = {run: text.split() for run, text in texts.items()}
    onsets, durations = {}, {}
    for run, said in words.items():
        pause = np.cumsum([0.0, *(0.6 if w[-1] in ".!?" else 0.0 for w in said[:-1])])
        onsets[run] = 0.4 * np.arange(len(said)) + pause
        durations[run] = np.full(len(said), 0.35)
    return make_story(words, onsets, durations, name="little")


@pytest.fixture(scope="session")
def arrays_design() -> Callable[..., Design]:
    """Make a design straight from arrays, as if story and scanner had met."""

    def make(
        X: Mapping[str, np.ndarray],
        Y: np.ndarray | Mapping[float, np.ndarray],
        run: np.ndarray,
        scans: np.ndarray | None = None,
    ) -> Design:
        by_delay = dict(Y) if isinstance(Y, Mapping) else {0.0: Y}
        n_targets = next(iter(by_delay.values())).shape[1]
        place = np.concatenate([np.arange(n) for n in np.unique(run, return_counts=True)[1]])
        return Design(
            X=dict(X),
            Y=by_delay,
            ids=np.array([f"{r}/row-{i:04d}" for r, i in zip(run, place, strict=True)]),
            run=run,
            scans=np.stack([place, place], axis=1) if scans is None else scans,
            subject="sub-01",
            space=Space("columns", np.array([f"column-{i}" for i in range(n_targets)])),
            left_out={},
        )

    return make


@pytest.fixture(scope="session")
def autocorrelated() -> Callable[..., np.ndarray]:
    """Draw AR(1) noise of unit variance: slow, like a brain that does nothing in particular."""

    def draw(rng: np.random.Generator, n: int, k: int, rho: float = 0.8) -> np.ndarray:
        out = rng.standard_normal((n, k))
        for i in range(1, n):
            out[i] = rho * out[i - 1] + np.sqrt(1 - rho**2) * out[i]
        return out

    return draw


def _tokenizer(bos: bool) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=340,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(TRAINING_TEXT, trainer)
    if bos:
        core.post_processor = processors.TemplateProcessing(
            single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", 0)]
        )
    else:
        core.post_processor = processors.ByteLevel(trim_offsets=True)
    return PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", eos_token="</s>")


def _save(model: Any, bos: bool, folder: Path) -> Path:
    model.eval().save_pretrained(folder)
    _tokenizer(bos).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def llama_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save a 3-block Llama with grouped queries, whose tokenizer puts a BOS token in front."""
    import torch
    import transformers

    torch.set_num_threads(1)
    torch.manual_seed(1)
    config = transformers.LlamaConfig(
        vocab_size=340, hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, bos_token_id=0, eos_token_id=1, initializer_range=0.15,
    )  # fmt: skip
    return _save(
        transformers.LlamaForCausalLM(config), True, tmp_path_factory.mktemp("models") / "tiny-llama"
    )


@pytest.fixture(scope="session")
def gpt2_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save a 2-block GPT-2, whose tokenizer adds nothing."""
    import torch
    import transformers

    torch.set_num_threads(1)
    torch.manual_seed(2)
    config = transformers.GPT2Config(
        vocab_size=340, n_positions=64, n_embd=24, n_layer=2, n_head=3, bos_token_id=0, eos_token_id=1,
        initializer_range=0.15,
    )  # fmt: skip
    return _save(transformers.GPT2LMHeadModel(config), False, tmp_path_factory.mktemp("models") / "tiny-gpt2")


PLANTED_STUDY = """
name = "Planted tables"
seed = 3
jobs = 1

[story]
files = "story/{{run}}.tsv"

[recording]
files = "sub-{{subject}}_{{run}}.tsv"
tr = 2.0

[recording.regions]
language = {language}
auditory = {auditory}
silent = {silent}

[[models]]
name = "llama"
source = "{llama}"

[[models]]
name = "gpt2"
source = "{gpt2}"

[features]
bos = "tokenizer"
controls = ["duration"]

[protocol]
pca = 15
penalties = [1.0, 10.0, 100.0, 1000.0]
n_nulls = 39

[compare]
region = "language"
"""


@pytest.fixture(scope="session")
def planted_corpus(llama_folder: Path, gpt2_folder: Path) -> Callable[..., Path]:
    """Write a planted corpus of tables: targets 0 to 7 follow the Llama's layer 2 at 6 s, 8 to 10 duration."""
    from langcortex.features import extract, load_model
    from langcortex.simulation.demo import demo_story
    from langcortex.simulation.planted import Plant, plant

    whole = demo_story().take(["run-1", "run-2", "run-3", "run-4"])
    layers = extract(whole, load_model(str(llama_folder), "llama"))

    def make(
        folder: Path,
        subjects: tuple[str, ...] = ("01", "02"),
        runs: int = 4,
        what: Plant | None = None,
        n_targets: int = 24,
    ) -> Path:
        what = what or Plant(signal=0.5)
        told = whole.take(whole.runs[:runs])
        names = [f"t{i:02d}" for i in range(n_targets)]
        number = np.arange(n_targets)
        (folder / "story").mkdir(parents=True, exist_ok=True)
        for run in told.runs:
            part = told.take([run])
            columns = {
                "word": part.text,
                "onset": part.onset,
                "duration": part.duration,
                "sentence": part.sentence,
            }
            pd.DataFrame(columns).to_csv(folder / "story" / f"{run}.tsv", sep="\t", index=False)
        for subject in subjects:
            rng = np.random.default_rng(list(subject.encode()))
            language, auditory = number < 8, (number >= 8) & (number < 11)
            planted = plant(whole, layers["llama/layer-02"], language, auditory, what, rng)
            for run in told.runs:
                table = pd.DataFrame(planted[run], columns=names)
                table.to_csv(folder / f"sub-{subject}_{run}.tsv", sep="\t", index=False, float_format="%.5f")
        study = PLANTED_STUDY.format(
            language=names[:8], auditory=names[8:11], silent=names[11:], llama=llama_folder, gpt2=gpt2_folder
        )
        (folder / "study.toml").write_text(study, encoding="utf-8")
        return folder / "study.toml"

    return make


@pytest.fixture
def call(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Run the command line here: (exit code, stdout, stderr)."""
    from langcortex import cli

    def run(*argv: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["langcortex", *map(str, argv)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capsys.readouterr()
        return (ended.value.code if isinstance(ended.value.code, int) else 0), out, err

    return run


@pytest.fixture(scope="session")
def with_recipe() -> Callable[[Path], Path]:
    """Write a study again, beside itself, with the published recipe."""

    def write(path: Path) -> Path:
        head, _, rest = path.read_text(encoding="utf-8").partition("[protocol]")
        head = head.replace("[story]", '[story]\nsentences = "column"')
        other = path.with_name("recipe.toml")
        other.write_text(
            f'{head}[protocol]\npreset = "replication-2025"\n[compare]{rest.partition("[compare]")[2]}', encoding="utf-8"
        )  # fmt: skip
        return other

    return write
