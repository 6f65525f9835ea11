"""Inside a model: what hooks see equals what HuggingFace says, for every family."""

import numpy as np
import pytest
import torch
import transformers
from transformers import AutoModelForCausalLM

from langcortex.errors import ModelError, SettingsError
from langcortex.features.models import extraction
from langcortex.features.models.capture import blocks_of, head_parts, projection_of
from langcortex.features.models.extraction import extract
from langcortex.features.models.loading import LanguageModel, load_model
from langcortex.features.models.tokens import encode_passage, make_frame

SMALL = {
    "vocab_size": 340, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4,
    "max_position_embeddings": 64, "bos_token_id": 0, "eos_token_id": 1, "initializer_range": 0.15,
}  # fmt: skip
GROUPED = {**SMALL, "num_key_value_heads": 2}
CONFIGS = {
    "llama": lambda: transformers.LlamaConfig(**GROUPED),
    "qwen2": lambda: transformers.Qwen2Config(**GROUPED),
    "mistral": lambda: transformers.MistralConfig(**GROUPED, sliding_window=8),
    "gemma": lambda: transformers.GemmaConfig(**GROUPED, head_dim=16),
    "gemma2": lambda: transformers.Gemma2Config(**GROUPED, head_dim=16, sliding_window=8, final_logit_softcapping=5.0),
    "gemma3": lambda: transformers.Gemma3TextConfig(**GROUPED, head_dim=16, sliding_window=8),
    "gpt2": lambda: transformers.GPT2Config(
        vocab_size=340, n_positions=64, n_embd=32, n_layer=3, n_head=4, initializer_range=0.15
    ),
    "opt": lambda: transformers.OPTConfig(
        vocab_size=340, hidden_size=32, ffn_dim=48, num_hidden_layers=3, num_attention_heads=4, max_position_embeddings=64,
        word_embed_proj_dim=24, init_std=0.15,
    ),
    "gpt-neox": lambda: transformers.GPTNeoXConfig(**SMALL),
    "gptj": lambda: transformers.GPTJConfig(
        vocab_size=340, n_positions=64, n_embd=32, n_layer=3, n_head=4, rotary_dim=8, initializer_range=0.15
    ),
    "gpt-neo": lambda: transformers.GPTNeoConfig(
        vocab_size=340, hidden_size=32, num_layers=2, num_heads=4, attention_types=[[["global", "local"], 1]],
        max_position_embeddings=64, window_size=4, initializer_range=0.15,
    ),
    "bloom": lambda: transformers.BloomConfig(vocab_size=340, hidden_size=32, n_layer=3, n_head=4, initializer_range=0.15),
    "falcon": lambda: transformers.FalconConfig(
        vocab_size=340, hidden_size=32, num_hidden_layers=3, num_attention_heads=4, initializer_range=0.15,
        max_position_embeddings=64, bos_token_id=0, eos_token_id=1,
    ),
    "phi": lambda: transformers.PhiConfig(**SMALL),
    "cohere": lambda: transformers.CohereConfig(**GROUPED, pad_token_id=1, logit_scale=0.25),
    "granite": lambda: transformers.GraniteConfig(**GROUPED, embedding_multiplier=3.0, logits_scaling=4.0),
    "bert": lambda: transformers.BertConfig(**{**SMALL, "initializer_range": 0.15}),
}  # fmt: skip
CAUSAL = [name for name in CONFIGS if name != "bert"]


@pytest.fixture(scope="module")
def tokenizer(llama_folder):
    return transformers.AutoTokenizer.from_pretrained(llama_folder)


@pytest.fixture(scope="module")
def make(tokenizer):
    made = {}

    def one(name):
        if name not in made:
            torch.manual_seed(5)
            config = CONFIGS[name]()
            loader = transformers.AutoModel if name == "bert" else AutoModelForCausalLM
            whole = loader.from_config(config).eval()
            with torch.no_grad():  # fresh biases and norms are 0 and 1, which would hide mistakes
                for parameter in whole.parameters():
                    if parameter.ndim == 1:
                        parameter += 0.1 * torch.randn_like(parameter)
            body = whole if name == "bert" else whole.base_model
            made[name] = LanguageModel(
                name, body, tokenizer, f"{name}-seed-5", None if name == "bert" else whole
            )
        return made[name]

    return one


@pytest.fixture(scope="module")
def sentences(story, tokenizer):
    """Each sentence's first word, tokens (BOS in front) and which word each token belongs to."""
    frame = make_frame(tokenizer, "m")
    out = []
    for name in story.sentences.ids:
        rows = np.flatnonzero(story.sentence == name)
        passage = encode_passage(story, rows[0], rows[-1] + 1, tokenizer, "m", frame)
        out.append((rows, passage.head + passage.ids, passage.pairs + np.array([0, len(passage.head)])))
    return out


def _word_means(story, sentences, values):
    """Average (…, tokens, width) over the tokens of each word, by a plain loop."""
    out = []
    for (rows, _, pairs), tokens in zip(sentences, values, strict=True):
        out += [tokens[..., pairs[pairs[:, 0] == row, 1], :].mean(axis=-2) for row in rows]
    return np.stack(out, axis=-2)


@pytest.mark.parametrize("name", CONFIGS)
def test_hidden_states_are_those_huggingface_gives(story, make, sentences, name):
    model = make(name)
    states = []
    for _, ids, _ in sentences:
        with torch.inference_mode():
            out = model.body(input_ids=torch.tensor([ids]), output_hidden_states=True)
        states.append([h[0].numpy() for h in out.hidden_states])
    found = extract(story, model)
    assert len(found) == model.n_layers + 1 == len(states[0])
    for k, layer in enumerate(found):
        expected = _word_means(story, sentences, [s[k] for s in states])
        scale = max(1.0, np.abs(expected).max())
        np.testing.assert_allclose(found[layer].values, expected, atol=1e-6 * scale)


@pytest.mark.parametrize("name", CONFIGS)
def test_heads_projected_add_up_to_what_attention_writes(story, make, sentences, name):
    """Σ_h W_h z_h + bias is the output of the projection, also where queries are grouped."""
    model = make(name)
    found = extract(story, model, take=["heads"], layers=[0, 1, 2])
    assert list(found) == [f"{name}/heads-01", f"{name}/heads-02"]
    for number in (1, 2):
        written: list[np.ndarray] = []
        projection = projection_of(model, number)
        handle = projection.register_forward_hook(
            lambda m, a, out, written=written: written.append(out.reshape(-1, out.shape[-1]).numpy())
        )
        with torch.inference_mode():
            for _, ids, _ in sentences:
                model.body(input_ids=torch.tensor([ids]))
        handle.remove()
        parts = head_parts(model, number, found[f"{name}/heads-{number:02d}"].values)
        assert parts.shape == (len(story), model.n_heads, model.width)
        bias = getattr(projection, "bias", None)
        total = parts.sum(axis=1) + (0 if bias is None else bias.detach().numpy())
        np.testing.assert_allclose(total, _word_means(story, sentences, written), atol=2e-5)
    with pytest.raises(ModelError, match=r"Heads of layer 1 of .* have \d+ columns; these values have shape"):
        head_parts(model, 1, np.zeros((2, 3)))


@pytest.mark.parametrize("name", CONFIGS)
def test_mlps_are_what_their_module_gives(story, make, sentences, name):
    """In models that add the MLP as it is, the residual stream before and after the block says so."""
    model = make(name)
    found = extract(story, model, take=["states", "heads", "mlp"])
    if name in (
        "llama",
        "qwen2",
        "mistral",
        "gpt2",
        "gemma",
        "bloom",
        "gpt-neox",
        "gpt-neo",
        "opt",
        "phi",
        "falcon",
        "gptj",
    ):
        bias = getattr(projection_of(model, 1), "bias", None)
        attention = head_parts(model, 1, found[f"{name}/heads-01"].values).sum(axis=1)
        attention = attention + (0 if bias is None else bias.detach().numpy())
        step = found[f"{name}/layer-01"].values - found[f"{name}/layer-00"].values
        np.testing.assert_allclose(found[f"{name}/mlp-01"].values, step - attention, atol=1e-4)
    assert found[f"{name}/mlp-02"].values.shape == (len(story), model.width)
    assert np.isfinite(found[f"{name}/mlp-02"].values).all()


@pytest.mark.parametrize("name", CAUSAL)
def test_surprisal_and_entropy_are_those_of_the_whole_model(story, make, sentences, name):
    model = make(name)
    surprisal, entropy = np.zeros(len(story)), np.zeros(len(story))
    for rows, ids, pairs in sentences:
        with torch.inference_mode():
            p = torch.softmax(model.head(input_ids=torch.tensor([ids])).logits[0].double(), dim=-1).numpy()
        for row in rows:
            places = pairs[pairs[:, 0] == row, 1]
            surprisal[row] = sum(-np.log2(p[t - 1, ids[t]]) for t in places)
            entropy[row] = -(p[places[0] - 1] * np.log2(p[places[0] - 1])).sum()
    found = extract(story, model, take=["surprisal", "entropy"])
    assert list(found) == [f"{name}/surprisal", f"{name}/entropy"]
    np.testing.assert_allclose(found[f"{name}/surprisal"].values[:, 0], surprisal, atol=1e-4)
    np.testing.assert_allclose(found[f"{name}/entropy"].values[:, 0], entropy, atol=1e-4)
    assert found[f"{name}/surprisal"].combine == "sum"
    assert found[f"{name}/entropy"].combine == "mean"


@pytest.mark.parametrize("context", ["run", 24])
def test_one_pass_gives_everything_that_passes_of_their_own_give(story, make, context, monkeypatch):
    model = make("llama")
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


@pytest.mark.parametrize("name", CONFIGS)
def test_padding_never_leaks(story, make, name):
    """A batch gives what one text at a time gives, for everything that can be taken."""
    model = make(name)
    kinds = ["states", "heads", "mlp", "attention", *([] if name == "bert" else ["surprisal", "entropy"])]
    if name in ("gptj", "bloom", "falcon", "gpt-neo"):
        kinds.remove("attention")
    one = extract(story, model, take=kinds, batch_tokens=1)
    many = extract(story, model, take=kinds, batch_tokens=10_000)
    for layer in one:
        np.testing.assert_allclose(one[layer].values, many[layer].values, atol=2e-5)


def test_hooks_are_taken_off_and_attention_is_as_before(story, make):
    model = make("llama")
    model.body.set_attn_implementation("sdpa")
    extract(story, model, take=["states", "heads", "mlp", "attention"])
    assert model.body.config._attn_implementation == "sdpa"
    ours = [
        h
        for m in model.body.modules()
        for h in m._forward_hooks.values()
        if "langcortex" in getattr(h, "__module__", "")
    ]
    assert not ours


def test_a_model_whose_inside_is_unknown_is_an_error(story, make, tokenizer):
    class Block(torch.nn.Module):
        pass

    body = torch.nn.Module()
    body.config = transformers.LlamaConfig(**GROUPED)
    odd = LanguageModel("odd", body, tokenizer, "r")
    with pytest.raises(ModelError, match="'odd' is not built of 3 blocks in a list"):
        blocks_of(odd)
    body.layers = torch.nn.ModuleList(Block() for _ in range(3))
    with pytest.raises(
        ModelError, match=r"keeps the output projection of its attention \(it is a Block\). Take hidden"
    ):
        projection_of(odd, 1)


def test_surprisal_needs_a_head_a_causal_model_and_something_before_the_first_word(
    story, make, tokenizer, llama_folder, monkeypatch
):
    bare = load_model(str(llama_folder), device="cpu")
    with pytest.raises(SettingsError, match=r"loaded without its output head.*head=True"):
        extract(story, bare, take=["surprisal"])
    bert = make("bert")
    with pytest.raises(SettingsError, match="sees the words on both sides"):
        extract(story, LanguageModel("bert", bert.body, tokenizer, "r", bert.body), take=["entropy"])
    with pytest.raises(SettingsError, match=r"Nothing stands before the first word.*bos = true"):
        extract(story, make("llama"), take=["surprisal"], bos=False)
    after = extract(story, make("llama"), take=["surprisal"], bos=False, prefix="Once. ")
    assert np.isfinite(after["llama/surprisal"].values).all()
    monkeypatch.setattr(
        "langcortex.features.models.next_word.logits", lambda model, states: states @ torch.ones(32, 340)
    )
    with pytest.raises(ModelError, match="does not follow from its last layer in a way langcortex knows"):
        extract(story, make("llama"), take=["surprisal"])


def test_a_head_adds_nothing_to_the_states(story, llama_folder):
    plain = extract(story, load_model(str(llama_folder), "m", device="cpu"))
    headed = extract(story, load_model(str(llama_folder), "m", device="cpu", head=True))
    for name in plain:
        np.testing.assert_array_equal(plain[name].values, headed[name].values)
    a = load_model(str(llama_folder), untrained_seed=3, device="cpu")
    b = load_model(str(llama_folder), untrained_seed=3, device="cpu", head=True)
    for (name, left), right in zip(a.body.named_parameters(), b.body.parameters(), strict=True):
        assert torch.equal(left, right), name
    assert a.revision == b.revision
    assert np.isfinite(extract(story, b, take=["surprisal"])[f"{b.name}/surprisal"].values).all()


def test_kinds_that_do_not_exist_are_named(story, make):
    for options, said in (
        (
            {"take": ["hidden"]},
            r"'states', 'heads', 'mlp', 'attention', 'surprisal', 'entropy', not 'hidden'",
        ),
        ({"take": []}, "take one"),
        ({"take": ["heads"], "layers": [0]}, "layers 1 to 3; layer 0 has none"),
    ):
        with pytest.raises(SettingsError, match=said):
            extract(story, make("llama"), **options)
