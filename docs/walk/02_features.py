"""2. Features: what the text itself, or a language model, says about each word or sentence of a story.

`Features` is a named table: one row per word or sentence, with the ids and times of the story.
"""

import tempfile
from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from langcortex import control, extract, load_model
from langcortex.simulation.demo import demo_story

story = demo_story().take(["run-1"])

# Controls need no model. A control of words knows how its rows merge into sentences: counts are summed.
count = control("word_count", story)
merged = count.to_sentences(story)
print(
    f"word_count: {len(count.ids)} words become {len(merged.ids)} sentences, the first of {merged.values[0, 0]:.0f}"
)

# A tiny Llama stands in for a real one: same code, random weights, a tokenizer trained on this text.
# For a real model, all of this block is its folder or its name on the hub.
folder = tempfile.TemporaryDirectory()
core = Tokenizer(models.BPE())
core.pre_tokenizer, core.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
options = {"vocab_size": 400, "special_tokens": ["<s>", "</s>"], "show_progress": False}
trainer = trainers.BpeTrainer(initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), **options)
core.train_from_iterator(story.sentences.text.tolist(), trainer)
tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", eos_token="</s>")
tokenizer.save_pretrained(folder.name)
torch.manual_seed(1)
numbers = {"vocab_size": 400, "bos_token_id": 0, "eos_token_id": 1, "max_position_embeddings": 128}
sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4}
transformers.logging.disable_progress_bar()
config = transformers.LlamaConfig(**numbers, **sizes)
transformers.LlamaForCausalLM(config).save_pretrained(folder.name)

# Layer 0 is the embeddings, layer n the output of block n. A word is the mean of its tokens' states.
model = load_model(str(Path(folder.name)), "tiny", device="cpu")
layers = extract(story, model, context="sentence")
print(f"{model.name}: layers {', '.join(name.split('-')[-1] for name in layers)} of width {model.width}")
print(f"{layers.audit['tokens']} tokens for {layers.audit['words']} words")

# A layer is read when it is used. Its rows have the story's ids; `combine` is how words merge.
states = layers["tiny/layer-02"]
print(f"{states.name}: {states.values.shape}, row 5 is {states.ids[5]}, merged by {states.combine}")

# Rows are looked up by id, never by position.
print(f"Rows of two words: {states.find_rows(story.ids[[7, 3]]).tolist()}")

# The untrained twin: the same architecture with random weights. What it explains is not a result of training.
twin = load_model(folder.name, "twin", untrained_seed=0, device="cpu")
print(f"The twin is another model: {twin.revision != model.revision}")
folder.cleanup()
