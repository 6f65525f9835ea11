"""Configurations of small models of every family, and plain loops that features are compared with."""

import numpy as np
import transformers

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


def word_means(story, sentences, values):
    """Average (…, tokens, width) over the tokens of each word, in a plain loop."""
    out = []
    for (rows, _, pairs), tokens in zip(sentences, values, strict=True):
        out += [tokens[..., pairs[pairs[:, 0] == row, 1], :].mean(axis=-2) for row in rows]
    return np.stack(out, axis=-2)


def stack_layers(layers):
    """Stack the values of all layers: (n_layers, n_words, width)."""
    return np.stack([layers[name].values for name in layers])
