"""Extraction: states equal a plain HuggingFace loop, and finished runs are not read again."""

import dataclasses
import subprocess
import sys

import numpy as np
import pytest
import torch
import transformers

from langcortex.cache import Store
from langcortex.errors import ModelError, SettingsError
from langcortex.features.models import extraction, tokens
from langcortex.features.models.extraction import extract
from langcortex.features.models.loading import load_model
from langcortex.features.models.tokens import cut_token_windows, make_frame
from langcortex.stimulus.story import make_story
from reference.model_families import stack_layers


@pytest.fixture(scope="module")
def plain(folder):
    """The independent reference: the same weights through transformers alone."""
    body = transformers.AutoModel.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)

    def states(ids):
        with torch.inference_mode():
            out = body(input_ids=torch.tensor([ids]), output_hidden_states=True)
        return np.stack([h[0].numpy() for h in out.hidden_states])

    return states, tokenizer


def _word_means(spans, offsets, states):
    """Average the tokens whose characters lie mostly in each word, by a loop over characters."""
    owner = []
    for a, b in offsets:
        shares = [sum(x <= c < y for c in range(a, b)) for x, y in spans]
        owner.append(int(np.argmax(shares)) if max(shares) > 0 else None)
    rows = [[t for t, w in enumerate(owner) if w == i] for i in range(len(spans))]
    return np.stack([states[:, tokens].mean(axis=1) for tokens in rows], axis=1)


def adds_bos(model):
    return bool(make_frame(model.tokenizer, "m").head)


# States


@pytest.mark.parametrize("bos", [None, True, False])
def test_states_of_sentences_equal_a_plain_loop(story, model, plain, bos):
    states, tokenizer = plain
    layers = extract(story, model, bos=bos)
    adds_bos = tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id
    with_bos = adds_bos if bos is None else bos
    expected = []
    for name in story.sentences.ids:
        rows = np.flatnonzero(story.sentence == name)
        text, spans = story.join_words(rows[0], rows[-1] + 1)
        encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        prefix = [tokenizer.bos_token_id] if with_bos else []
        hidden = states(prefix + encoded["input_ids"])[:, len(prefix) :]
        expected.append(_word_means(spans, encoded["offset_mapping"], hidden))
    assert list(layers) == [f"{model.name}/layer-{k:02d}" for k in range(model.n_layers + 1)]
    np.testing.assert_allclose(stack_layers(layers), np.concatenate(expected, axis=1), atol=1e-5)
    assert layers[next(iter(layers))].values.dtype == np.float32
    np.testing.assert_array_equal(layers[next(iter(layers))].ids, story.ids)


def _run_as_tokens(story, run, tokenizer):
    part = story.take([run])
    text, spans = part.join_words(0, len(part))
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    return spans, encoded["offset_mapping"], encoded["input_ids"]


@pytest.mark.parametrize("context", [2, 7, 10, 16])
def test_states_with_a_running_context_equal_a_plain_loop(story, model, plain, context):
    """New tokens come in windows of half the context, each read after as much as fits before it."""
    states, tokenizer = plain
    prefix = tokenizer("a")["input_ids"][:-1]
    expected = []
    for run in story.runs:
        spans, offsets, ids = _run_as_tokens(story, run, tokenizer)
        hidden = []
        while sum(len(h[0]) for h in hidden) < len(ids):
            done = sum(len(h[0]) for h in hidden)
            stop = min(len(ids), done + (context // 2 if done else context))
            start = max(0, stop - context)
            assert not done or done - start >= context // 2  # every token has at least half of the context
            hidden.append(states(prefix + ids[start:stop])[:, len(prefix) + done - start :])
        expected.append(_word_means(spans, offsets, np.concatenate(hidden, axis=1)))
    states_of_words = stack_layers(extract(story, model, context=context))
    np.testing.assert_allclose(states_of_words, np.concatenate(expected, axis=1), atol=1e-5)


def test_a_context_longer_than_the_run_is_one_pass(story, model, plain):
    states, tokenizer = plain
    prefix = tokenizer("a")["input_ids"][:-1]
    expected = []
    for run in story.runs:
        spans, offsets, ids = _run_as_tokens(story, run, tokenizer)
        assert len(ids) <= 60
        expected.append(_word_means(spans, offsets, states(prefix + ids)[:, len(prefix) :]))
    np.testing.assert_allclose(
        stack_layers(extract(story, model, context=60)), np.concatenate(expected, axis=1), atol=1e-5
    )


def test_a_whole_run_is_one_pass(story, model):
    np.testing.assert_array_equal(
        stack_layers(extract(story, model, context="run")), stack_layers(extract(story, model, context=60))
    )
    words = ("so it was " * 40 + "end.").split()
    long = make_story({"r": words}, {"r": np.arange(len(words), dtype=float)}, {"r": np.ones(len(words))})
    with pytest.raises(
        SettingsError, match=r"'r', '.*': The run has \d+ tokens and the model reads at most 6\d at once"
    ):
        extract(long, model, context="run")


@pytest.mark.parametrize("prefix", ["", "Hear this: "])
def test_fast_is_what_reading_every_words_own_window_again_gives(story, model, plain, prefix):
    """One pass per word, cut off behind the word: nothing of what follows was seen."""
    states, tokenizer = plain
    part, context = story.take(["run-2"]), 12
    fast = stack_layers(extract(part, model, context=context, prefix=prefix))
    frame = make_frame(tokenizer, "m", prefix=prefix)
    passage = tokens.encode_passage(part, 0, len(part), tokenizer, "m", frame)
    windows = list(cut_token_windows(len(passage.ids), context, 64))
    for row in range(len(part)):
        places = passage.pairs[passage.pairs[:, 0] == row, 1]
        values = []
        for t in places:
            (start,) = [a for a, new, stop in windows if new <= t < stop]
            hidden = states(passage.head + passage.ids[start : t + 1])
            values.append(hidden[:, -1])
        np.testing.assert_allclose(fast[:, row], np.mean(values, axis=0), atol=1e-4)


def test_a_prefix_is_read_and_not_kept(story, model):
    plain_values = stack_layers(extract(story, model))
    framed = extract(story, model, prefix="A king had said: ")
    np.testing.assert_array_equal(framed[next(iter(framed))].ids, story.ids)
    assert np.abs(stack_layers(framed)[1:] - plain_values[1:]).max() > 0.01
    suffixed = stack_layers(extract(story, model, suffix=" And so on."))
    np.testing.assert_allclose(suffixed, plain_values, atol=1e-5)  # a causal model does not see what follows


def test_progress_counts_every_word_once_and_says_how_fast(story, model, tmp_path):
    done, paces = [], []
    store = Store(tmp_path)
    extract(story, model, store=store, batch_tokens=1, progress=done.append, pace=paces.append)
    assert sum(done) == len(story)
    assert len(done) > 3
    assert [p.words for p in paces] == sorted(p.words for p in paces)
    assert paces[-1].words == paces[-1].total == len(story)
    assert paces[-1].tokens >= len(story)
    assert paces[-1].tokens_per_second > 0
    assert paces[-1].seconds_left == 0
    assert all(p.seconds_left > 0 for p in paces[:-1] if p.words)
    again = []
    extract(story, model, store=store, pace=again.append)
    assert again[-1].words == len(story)
    assert again[-1].tokens == 0
    assert np.isnan(again[-1].seconds_left)


def test_the_audit_is_kept_by_run(story, model, tmp_path):
    store = Store(tmp_path)
    extract(story, model, store=store)
    layers = extract(story, model, store=store)
    assert list(layers.by_run) == list(story.runs)
    assert sum(row["words"] for row in layers.by_run.values()) == layers.audit["words"] == len(story)
    assert all(isinstance(row["odd words"], list) for row in layers.by_run.values())


def test_a_sentence_longer_than_the_model_is_read_in_windows(model):
    words = ("so it was " * 40 + "end.").split()
    story = make_story({"r": words}, {"r": np.arange(len(words), dtype=float)}, {"r": np.ones(len(words))})
    assert np.isfinite(stack_layers(extract(story, model))).all()
    longest = model.max_tokens - adds_bos(model)
    np.testing.assert_allclose(
        stack_layers(extract(story, model)), stack_layers(extract(story, model, context=longest)), atol=1e-5
    )


def test_some_layers_are_those_of_all(story, model):
    subset = extract(story, model, layers=[2, 0])
    full = extract(story, model)
    assert list(subset) == [f"{model.name}/layer-00", f"{model.name}/layer-02"]
    for name in subset:
        np.testing.assert_array_equal(subset[name].values, full[name].values)


def test_a_word_never_sees_what_follows_it(story, model):
    changed = make_story(
        {"run-1": [*story.take(["run-1"]).text[:-1], "where!"]},
        {"run-1": story.take(["run-1"]).onset},
        {"run-1": story.take(["run-1"]).duration},
    )
    a, b = stack_layers(extract(story.take(["run-1"]), model)), stack_layers(extract(changed, model))
    np.testing.assert_allclose(a[:, :-1], b[:, :-1], atol=1e-5)
    assert np.abs(a[:, -1] - b[:, -1]).max() > 1e-3


def test_the_audit_counts_what_the_tokenizer_did(story, model, plain):
    texts = [
        plain[1].convert_ids_to_tokens(plain[1](t, add_special_tokens=False)["input_ids"])
        for t in story.sentences.text
    ]
    audit = extract(story, model).audit
    assert (audit["words"], audit["tokens"]) == (len(story), sum(map(len, texts)))
    assert 0 < audit["words of several tokens"] < len(story)
    assert audit["words sharing a token"] == 0
    assert audit["tokens of no word"] == sum(token == "Ġ" for text in texts for token in text)  # lone spaces


# Keeping


@pytest.fixture
def forward_calls(monkeypatch):
    calls, real = [], extraction._forward

    def counted(model, texts, *arguments):
        calls.append(len(texts))
        return real(model, texts, *arguments)

    monkeypatch.setattr(extraction, "_forward", counted)
    return calls


def test_a_run_that_was_finished_before_a_crash_is_not_read_again(
    story, model, tmp_path, forward_calls, monkeypatch
):
    def crash(words):
        raise KeyboardInterrupt

    store = Store(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        extract(story, model, store=store, progress=crash)
    first = len(forward_calls)
    done = []
    resumed = extract(story, model, store=store, progress=done.append)
    assert done == [int((story.run == run).sum()) for run in story.runs]
    second = len(forward_calls) - first
    forward_calls.clear()
    fresh = extract(story, model)
    assert first + second == len(forward_calls)
    assert first == len(forward_calls) / 3  # one batch a run
    np.testing.assert_array_equal(stack_layers(resumed), stack_layers(fresh))
    forward_calls.clear()
    extract(story, model, store=store)
    assert forward_calls == []


def test_another_text_context_bos_layer_or_model_is_another_result(
    story, model, tmp_path, forward_calls, gpt2_folder, llama_folder
):
    store = Store(tmp_path)
    part = story.take(["run-1"])
    extract(part, model, store=store)
    other_folder = gpt2_folder if model.width == 32 else llama_folder
    words = [*part.text[:-1], "who!"]
    changed = make_story({"run-1": words}, {"run-1": part.onset}, {"run-1": part.duration})
    merged = make_story(
        {"run-1": part.text},
        {"run-1": part.onset},
        {"run-1": part.duration},
        sentence={"run-1": [0] * len(part)},
    )
    for again in (
        lambda: extract(changed, model, store=store),
        lambda: extract(merged, model, store=store),
        lambda: extract(part, model, store=store, context=8),
        lambda: extract(part, model, store=store, bos=not adds_bos(model)),
        lambda: extract(part, load_model(str(other_folder), device="cpu"), store=store),
        lambda: extract(
            part,
            load_model(model_source(model, gpt2_folder, llama_folder), untrained_seed=1, device="cpu"),
            store=store,
        ),
    ):
        forward_calls.clear()
        again()
        assert forward_calls
    forward_calls.clear()
    later = make_story({"run-1": part.text}, {"run-1": part.onset + 5}, {"run-1": part.duration})
    stored = extract(
        later, model, store=store, pool="last", batch_tokens=5
    )  # times and pooling decide nothing here
    assert forward_calls == []
    assert stored[next(iter(stored))].combine == "last"
    np.testing.assert_array_equal(stored[next(iter(stored))].onset, part.onset + 5)


def model_source(model, gpt2_folder, llama_folder):
    return str(llama_folder if model.width == 32 else gpt2_folder)


def test_names_of_stored_results_stay_what_they_were(story, llama_folder, tmp_path, monkeypatch):
    """Results stored by the same versions of the packages are found by these names."""
    monkeypatch.setattr(extraction, "deciding_versions", lambda: {"torch": "2"})
    loaded = load_model(str(llama_folder), "m", device="cpu", head=True)
    model = dataclasses.replace(loaded, revision="0123")
    part, store = story.take(["run-1"]), Store(tmp_path)
    extract(part, model, layers=[2], take=extraction.TAKE, store=store)
    extract(part, model, layers=[1], context=8, prefix="Hear: ", store=store)
    names = {folder.name: sorted(file.stem for file in folder.glob("*.npy")) for folder in tmp_path.iterdir()}
    assert names == {
        "cd2115368510e387b0619f668c0cfbb9-layer-02": ["layer-02"],
        "cd2115368510e387b0619f668c0cfbb9-heads-02": ["heads-02"],
        "cd2115368510e387b0619f668c0cfbb9-mlp-02": ["mlp-02"],
        "cd2115368510e387b0619f668c0cfbb9-surprisal": ["surprisal"],
        "cd2115368510e387b0619f668c0cfbb9-entropy": ["entropy"],
        "af656e872114ef983fb51584da2b516d-attention-02": ["attention-02", "bos", "outside"],
        "8073ee43d022f8e47bb06b3bb8a91882-layer-01": ["layer-01"],
    }
    meta = store.meta("cd2115368510e387b0619f668c0cfbb9-layer-02")
    assert {"audit", "odd", "model"} <= set(meta)


def test_a_later_request_computes_only_the_layers_that_are_missing(story, model, tmp_path, monkeypatch):
    requests, real = [], extraction._forward

    def counted(model, texts, entries, *arguments):
        requests.append(sorted(entries))
        return real(model, texts, entries, *arguments)

    monkeypatch.setattr(extraction, "_forward", counted)
    store, part = Store(tmp_path), story.take(["run-1"])
    extract(part, model, layers=[1], store=store)
    extract(part, model, layers=[0, 1], take=["states", "mlp"], store=store)
    assert requests == [[("states", 1)], [("mlp", 1), ("states", 0)]]
    requests.clear()
    extract(part, model, layers=[0, 1], store=store)
    extract(part, model, layers=[1], take=["mlp"], store=store)
    assert requests == []


def test_another_prefix_suffix_or_context_is_another_result(story, model, tmp_path, forward_calls):
    store, part = Store(tmp_path), story.take(["run-1"])
    for options in ({}, {"prefix": "Once. "}, {"prefix": "Twice. "}, {"suffix": " End."}, {"context": "run"}):
        forward_calls.clear()
        extract(part, model, store=store, **options)
        assert forward_calls, options


SCRIPT = """
import sys, time
from pathlib import Path
import numpy as np
from langcortex.features.models import extraction
from langcortex.features.models.extraction import extract
from langcortex.features.models.loading import load_model
from langcortex.cache import Store
from langcortex.stimulus import make_story

words = {f"run-{i}": f"The cat number {i} sat on the mat. It saw a dog!".split() for i in range(6)}
times = {run: np.arange(float(len(w))) for run, w in words.items()}
story = make_story(words, times, {run: np.ones(len(w)) for run, w in words.items()})
real, slow = extraction._forward, float(sys.argv[3])
def forward(*rest):
    print("read", flush=True)
    time.sleep(slow)
    return real(*rest)
extraction._forward = forward
layers = extract(story, load_model(sys.argv[1], "m", device="cpu"), store=Store(Path(sys.argv[2])))
print("sum", repr(float(sum(np.abs(layers[n].values).sum() for n in layers))), flush=True)
"""


def _start(folder, store, slow):
    command = [sys.executable, "-c", SCRIPT, str(folder), str(store), str(slow)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_a_process_killed_at_any_moment_loses_the_run_in_progress_at_most(gpt2_folder, tmp_path):
    killed = _start(gpt2_folder, tmp_path, 0.5)
    for _ in range(4):
        assert killed.stdout.readline() == "read\n"  # three runs are kept, the fourth is being read
    killed.kill()
    killed.communicate()
    resumed, _ = _start(gpt2_folder, tmp_path, 0).communicate(timeout=120)
    assert resumed.count("read") == 3
    fresh, _ = _start(gpt2_folder, tmp_path / "fresh", 0).communicate(timeout=120)
    assert fresh.count("read") == 6
    assert resumed.splitlines()[-1] == fresh.splitlines()[-1]


def test_two_processes_on_one_store_do_no_harm(gpt2_folder, tmp_path):
    processes = [_start(gpt2_folder, tmp_path, 0.05) for _ in range(2)]
    message = [process.communicate(timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert message[0].splitlines()[-1] == message[1].splitlines()[-1]
    assert not list(tmp_path.glob(".*"))  # nothing half-written stays


def test_layers_are_read_one_at_a_time_and_nothing_stays_behind(story, model, monkeypatch, tmp_path):
    monkeypatch.setattr(extraction.tempfile, "tempdir", str(tmp_path))
    layers = extract(story, model)
    (temporary,) = tmp_path.iterdir()
    for path in temporary.glob("*/layer-01.npy"):
        path.unlink()  # only layer 1 is lost
    assert np.isfinite(layers[f"{model.name}/layer-00"].values).all()
    with pytest.raises(Exception, match="layer-01"):
        layers[f"{model.name}/layer-01"]
    values = layers[f"{model.name}/layer-02"].values
    del layers
    assert not temporary.exists()
    assert np.isfinite(values).all()


@pytest.mark.parametrize("context", ["run", 24])
def test_one_pass_has_the_values_of_separate_passes(story, make_family, context, monkeypatch):
    model = make_family("llama")
    kinds = ["states", "heads", "mlp", "attention", "surprisal", "entropy"]
    calls, real = [], extraction._forward
    monkeypatch.setattr(extraction, "_forward", lambda *a: (calls.append(1), real(*a))[1])
    together = extract(story, model, take=kinds, context=context)
    once = len(calls)
    for kind in kinds:
        calls.clear()
        alone = extract(story, model, take=[kind], context=context)
        assert len(calls) == once
        assert tuple(alone) == together.names_of_kind(kind)
        for name in alone:
            np.testing.assert_allclose(alone[name].values, together[name].values, atol=2e-5)


def test_unknown_kinds_are_errors_that_list_the_kinds(story, make_family):
    for options, message in (
        (
            {"take": ["hidden"]},
            r"'states', 'heads', 'mlp', 'attention', 'surprisal', 'entropy', not 'hidden'",
        ),
        ({"take": []}, "take one"),
        ({"take": ["heads"], "layers": [0]}, "layers 1 to 3; layer 0 has none"),
    ):
        with pytest.raises(SettingsError, match=message):
            extract(story, make_family("llama"), **options)


def test_wrong_settings_are_named(story, model, folder):
    for options, message in (
        ({"layers": [0, 9]}, f"layers 0 to {model.n_layers}; there is no layer 9"),
        ({"layers": [-1]}, "there is no layer -1"),
        ({"pool": "max"}, "Words merge by 'mean', 'last', 'sum', 'duration', not 'max'"),
        ({"context": 65}, "a context of 65 is too long"),
        ({"context": 1}, "A context of 1 tokens is too short"),
    ):
        with pytest.raises(SettingsError, match=message):
            extract(story, model, **options)


def test_a_word_the_tokenizer_drops_is_named(story, model, monkeypatch):
    real = tokens.assign_tokens
    monkeypatch.setattr(
        tokens, "assign_tokens", lambda spans, offsets, special: real(spans, offsets[:1], special[:1])
    )
    with pytest.raises(
        ModelError, match=r"leaves word 'run-1/word-0001' \('cat'\) without a token. Correct the word"
    ):
        extract(story, model)
