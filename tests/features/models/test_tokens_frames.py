"""What stands in front of the words is pinned and described; lengths are those that a model can read."""

import datetime

import numpy as np
import pytest
import torch
import transformers

from langcortex.errors import ModelError, SettingsError
from langcortex.features.models.extraction import extract
from langcortex.features.models.loading import load_model, load_tokenizer, read_model_shape
from langcortex.features.models.tokens import check_texts, describe_frame, make_frame

TURNS = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
DATED = {
    "llama 3.2": "{% if strftime_now is defined %}{% set d = strftime_now('%d %b %Y') %}{% else %}{% set d = 'x' %}{% endif %}Today Date: {{ d }}\n",
    "llama 3.1": "{% if not date_string is defined %}{% set date_string = '26 Jul 2024' %}{% endif %}Today Date: {{ date_string }}\n",
    "plain": "{{ date_string }} ",
    "iso": "{{ strftime_now('%Y-%m-%d') }} ",
}


@pytest.mark.parametrize("name", DATED)
def test_a_template_writes_the_same_date_on_every_day(family_tokenizer, monkeypatch, name):
    class Tomorrow(datetime.datetime):
        @classmethod
        def now(cls, tz=None):
            return cls(2031, 5, 6)

    monkeypatch.setattr(family_tokenizer, "chat_template", DATED[name] + TURNS, raising=False)
    today = make_frame(family_tokenizer, "m", chat="user")
    monkeypatch.setattr("transformers.utils.chat_template_utils.datetime", Tomorrow)
    assert make_frame(family_tokenizer, "m", chat="user") == today
    assert today.date == "2024-07-26"
    assert "2024" in today.before
    assert "always 2024-07-26" in describe_frame(today, family_tokenizer).summary


def test_a_template_without_a_date_has_none(family_tokenizer, monkeypatch):
    monkeypatch.setattr(family_tokenizer, "chat_template", TURNS, raising=False)
    assert make_frame(family_tokenizer, "m", chat="user").date == ""


def test_frames_differ_by_their_tokens_and_text_and_not_by_the_names_of_tokens(llama_folder, gpt2_folder):
    llama, gpt2 = (load_tokenizer(str(folder)) for folder in (llama_folder, gpt2_folder))

    def describe(tokenizer, **options):
        return describe_frame(make_frame(tokenizer, "m", **options), tokenizer)

    assert describe(llama).differences(describe(gpt2)) == ["beginning-of-text token (<s> and none)"]
    assert describe(llama, bos=True).differences(describe(gpt2, bos=True)) == []
    assert describe(llama, bos="tokenizer") == describe(llama)
    assert describe(gpt2, prefix="Read: ").differences(describe(gpt2)) == ["text in front of the story"]
    with pytest.raises(SettingsError, match=r"true, false or 'tokenizer', not 'yes'"):
        make_frame(llama, "m", bos="yes")


@pytest.fixture(scope="module")
def encoder(llama_folder, tmp_path_factory):
    """Save a RoBERTa of 34 positions, of which 32 can be used."""
    folder = tmp_path_factory.mktemp("models") / "tiny-roberta"
    torch.manual_seed(4)
    config = transformers.RobertaConfig(
        vocab_size=340, hidden_size=24, num_hidden_layers=2, num_attention_heads=3, intermediate_size=32,
        max_position_embeddings=34, pad_token_id=1,
    )  # fmt: skip
    transformers.RobertaForMaskedLM(config).save_pretrained(folder)
    transformers.AutoTokenizer.from_pretrained(llama_folder).save_pretrained(folder)
    return folder


def test_positions_of_roberta_begin_after_the_padding_token(encoder, story):
    model, shape = load_model(str(encoder), "r", device="cpu"), read_model_shape(str(encoder))
    assert model.max_tokens == shape.max_tokens == 32
    with pytest.raises(SettingsError, match=r"at most 31 at once. Use context = 31\.") as run:
        extract(story, model, context="run")
    tokenizer = load_tokenizer(str(encoder))
    frame = make_frame(tokenizer, "r")
    with pytest.raises(SettingsError) as checked:
        check_texts(story, tokenizer, "r", frame, "run", shape.max_tokens)
    assert str(checked.value) == str(run.value)
    check_texts(story, tokenizer, "r", frame, 31, shape.max_tokens)
    layers = extract(story, model, context=31)  # the length that is advised
    assert np.isfinite(layers["r/layer-02"].values).all()
    for read in (
        lambda: extract(story, model, context=32),
        lambda: check_texts(story, tokenizer, "r", frame, 32, shape.max_tokens),
    ):
        with pytest.raises(SettingsError, match=r"at most 31 tokens at once; a context of 32 is too long"):
            read()


@pytest.mark.parametrize(("dtype", "fix"), [("float16", 'dtype = "bfloat16"'), ("float32", "damaged")])
def test_states_that_are_not_finite_are_refused_at_the_first_run(story, llama_folder, dtype, fix):
    model = load_model(str(llama_folder), "m", device="cpu", dtype=dtype)
    with torch.no_grad():
        big = 6e4 if dtype == "float16" else float("inf")
        model.body.layers[1].mlp.down_proj.weight.fill_(big)
    read = []
    with pytest.raises(ModelError, match=rf"not finite in layer-0[123] of run 'run-1' \({dtype}\).*{fix}"):
        extract(story, model, progress=read.append)
    assert sum(read) <= len(story.take(["run-1"]))
