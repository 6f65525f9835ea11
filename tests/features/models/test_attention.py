"""Attention between words: cells are labelled, and the attention of every word sums to 1."""

import dataclasses

import numpy as np
import pytest
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers

from langcortex.cache import Store
from langcortex.errors import AlignmentError
from langcortex.features.models.attention import label_cells
from langcortex.features.models.extraction import extract
from langcortex.features.models.loading import LanguageModel, load_model
from langcortex.features.models.tokens import encode_passage, make_frame
from langcortex.stimulus.story import make_story


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def model(request, llama_folder, gpt2_folder):
    return load_model(
        str(llama_folder if request.param == "llama" else gpt2_folder), request.param, device="cpu"
    )


def _maps(body, ids):
    """The reference: HuggingFace's own maps (layers, heads, tokens, tokens)."""
    body.set_attn_implementation("eager")
    with torch.inference_mode():
        out = body(input_ids=torch.tensor([ids]), output_attentions=True)
    body.set_attn_implementation("sdpa")
    return np.stack([a[0].numpy() for a in out.attentions])


def _merged(story, model, rows, maps, passage, n_head):
    """Merge tokens to words by plain loops."""
    n = len(rows)
    out = np.zeros((*maps.shape[:2], n, n))
    owner = {w: passage.pairs[passage.pairs[:, 0] == w, 1] + n_head for w in rows}
    for i, a in enumerate(rows):
        for j, b in enumerate(rows):
            cell = sum(maps[:, :, t][:, :, u] for t in owner[a] for u in owner[b])
            out[:, :, i, j] = cell / len(owner[a])
    return out


@pytest.mark.parametrize("bos", [None, True])
def test_maps_of_sentences_equal_huggingfaces_merged_by_hand(story, model, bos):
    layers = extract(story, model, take=["attention"], bos=bos)
    frame = make_frame(model.tokenizer, "m", bos)
    for name in story.sentences.ids:
        rows = np.flatnonzero(story.sentence == name)
        passage = encode_passage(story, rows[0], rows[-1] + 1, model.tokenizer, "m", frame)
        n_head = len(passage.head)
        maps = _maps(model.body, passage.head + passage.ids)
        expected = _merged(story, model, rows, maps, passage, n_head)
        for k in range(model.n_layers):
            maps_of_layer = layers.attention_maps(f"{model.name}/attention-{k + 1:02d}")
            np.testing.assert_allclose(maps_of_layer.maps_of_sentence(name), expected[k], atol=1e-6)
            for i, row in enumerate(rows):
                tokens = passage.pairs[passage.pairs[:, 0] == row, 1] + n_head
                begin = maps[k][:, tokens, 0].mean(axis=1) if n_head else np.zeros(model.n_heads)
                np.testing.assert_allclose(maps_of_layer.bos[row], begin, atol=1e-6)
                remainder = 1 - expected[k][:, i].sum(axis=-1) - begin
                np.testing.assert_allclose(maps_of_layer.outside[row], remainder, atol=1e-5)


def test_maps_under_a_running_context_are_cut_from_the_whole_runs(story, model):
    layers = extract(story, model, take=["attention"], context="run", bos=True)
    frame = make_frame(model.tokenizer, "m", True)
    at = 0
    for run in story.runs:
        part = story.take([run])
        passage = encode_passage(part, 0, len(part), model.tokenizer, "m", frame)
        maps = _maps(model.body, passage.head + passage.ids)
        for name in part.sentences.ids:
            rows = np.flatnonzero(part.sentence == name)
            expected = _merged(part, model, rows, maps, passage, 1)
            for k in range(model.n_layers):
                maps_of_layer = layers.attention_maps(f"{model.name}/attention-{k + 1:02d}")
                np.testing.assert_allclose(maps_of_layer.maps_of_sentence(name), expected[k], atol=1e-6)
                for i, row in enumerate(rows):
                    total = (
                        expected[k][:, i].sum(axis=-1)
                        + maps_of_layer.bos[at + row]
                        + maps_of_layer.outside[at + row]
                    )
                    np.testing.assert_allclose(total, 1.0, atol=1e-5)
        assert maps_of_layer.outside[at + rows].min() > 0.05  # earlier sentences are outside
        at += len(part)


@pytest.mark.parametrize("context", ["sentence", "run", 8])
def test_the_attention_of_every_word_sums_to_one(story, model, context):
    layers = extract(story, model, take=["attention"], context=context)
    for name in layers:
        maps = layers.attention_maps(name)
        for sentence in story.sentences.ids:
            rows = np.flatnonzero(story.sentence == sentence)
            total = maps.maps_of_sentence(sentence).sum(axis=2).T + maps.bos[rows] + maps.outside[rows]
            np.testing.assert_allclose(total, 1.0, atol=1e-5)
            assert (
                np.abs(np.triu(maps.maps_of_sentence(sentence), 1)).max() == 0
            )  # no word attends to later ones
        if context == "sentence" and not make_frame(model.tokenizer, "m").head:
            assert np.abs(maps.bos).max() == 0


def test_cells_are_named_by_sentence_attending_and_attended_word(story, model):
    layers = extract(story, model, take=["attention"])
    name = f"{model.name}/attention-01"
    maps = layers.attention_maps(name)
    assert len(maps.values) == (story.sentences.n_words**2).sum()
    lower = maps.lower()
    strict = maps.lower(diagonal=False)
    sizes = story.sentences.n_words
    assert len(lower.values) == (sizes * (sizes + 1) // 2).sum()
    assert len(strict.values) == (sizes * (sizes - 1) // 2).sum()
    square = maps.maps_of_sentence("run-1/sentence-000")
    cells = [(i, j) for i in range(len(square[0])) for j in range(i + 1)]
    for at, (i, j) in enumerate(cells):
        assert (lower.sentence[at], lower.row[at], lower.column[at]) == (
            "run-1/sentence-000", f"run-1/word-{i:04d}", f"run-1/word-{j:04d}",
        )  # fmt: skip
        np.testing.assert_array_equal(lower.values[at], square[:, i, j])
    table = layers[name]
    assert table.ids[1] == "run-1/word-0001<run-1/word-0000"
    assert table.onset[1] == story.onset[1]
    np.testing.assert_array_equal(table.values, lower.values)
    with pytest.raises(AlignmentError, match="has no sentence 'run-9/sentence-000'"):
        maps.maps_of_sentence("run-9/sentence-000")


def test_renormalised_cells_of_a_word_sum_to_one_and_what_has_no_mass_is_undefined(story, model):
    maps = extract(story, model, take=["attention"]).attention_maps(f"{model.name}/attention-02")
    for diagonal in (True, False):
        cells = maps.lower(diagonal=diagonal, renormalise=True)
        for word in np.unique(cells.row):
            np.testing.assert_allclose(cells.values[cells.row == word].sum(axis=0), 1.0, atol=1e-5)
    empty = dataclasses.replace(maps, values=np.zeros_like(maps.values))
    assert np.isnan(empty.lower(renormalise=True).values).all()


def test_words_that_share_a_token_share_its_mass_and_its_surprisal(llama_folder):
    """A tokenizer that makes one token of two timed words: their columns are halves, and no mass is counted twice."""
    core = Tokenizer(models.WordLevel({"<s>": 0, "I": 1, "don't": 2, "go.": 3, "?": 4}, unk_token="?"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    glued = transformers.PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", unk_token="?")
    plain = make_story({"r": ["I", "don't", "go."]}, {"r": np.arange(3.0)}, {"r": np.ones(3)})
    cut = make_story({"r": ["I", "do", "n't", "go."]}, {"r": np.arange(4.0)}, {"r": np.ones(4)})
    cut = dataclasses.replace(cut, before=np.array(["", " ", "", " "], dtype=object))
    loaded = load_model(str(llama_folder), "m", device="cpu", head=True)
    model = LanguageModel("m", loaded.body, glued, "glued", loaded.head)
    plain_layers, glued_layers = (
        extract(s, model, take=["attention", "surprisal"], bos=True) for s in (plain, cut)
    )
    a, b = (
        layers.attention_maps("m/attention-02").maps_of_sentence(s.sentences.ids[0])
        for layers, s in ((plain_layers, plain), (glued_layers, cut))
    )
    np.testing.assert_allclose(b[:, 3], a[:, 2][:, [0, 1, 1, 2]] * [1, 0.5, 0.5, 1], atol=1e-6)
    np.testing.assert_allclose(b[:, 1], b[:, 2], atol=1e-6)  # the same token attends for both
    maps = glued_layers.attention_maps("m/attention-02")
    np.testing.assert_allclose(b.sum(axis=2).T + maps.bos + maps.outside, 1.0, atol=1e-5)
    np.testing.assert_allclose(
        glued_layers["m/surprisal"].values[:, 0],
        plain_layers["m/surprisal"].values[[0, 1, 1, 2], 0] * [1, 0.5, 0.5, 1],
        atol=1e-5,
    )


def test_other_sentences_are_other_maps_also_in_one_running_text(story, model, tmp_path):
    store = Store(tmp_path)
    extract(story, model, take=["attention"], context="run", store=store)
    merged = story.group_by("words")
    maps = extract(merged, model, take=["attention"], context="run", store=store).attention_maps(
        f"{model.name}/attention-01"
    )
    assert len(maps.values) == len(story)


def test_an_encoder_looks_both_ways(story, llama_folder):
    tokenizer = transformers.AutoTokenizer.from_pretrained(llama_folder)
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=340, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=64, initializer_range=0.15,
    )  # fmt: skip
    model = LanguageModel("bert", transformers.AutoModel.from_config(config).eval(), tokenizer, "r")
    maps = extract(story, model, take=["attention"]).attention_maps("bert/attention-01")
    square = maps.maps_of_sentence("run-1/sentence-000")
    assert np.triu(square[0], 1).max() > 0.01
    rows = np.flatnonzero(story.sentence == "run-1/sentence-000")
    np.testing.assert_allclose(square.sum(axis=2).T + maps.bos[rows] + maps.outside[rows], 1.0, atol=1e-5)


def test_labels_are_rows_of_every_sentences_square(story):
    sentence, row, column = label_cells(story)
    assert len(sentence) == len(row) == len(column) == (story.sentences.n_words**2).sum()
    n = int(story.sentences.n_words[0])
    assert row[:n].tolist() == [story.ids[0]] * n
    assert column[:n].tolist() == story.ids[:n].tolist()
