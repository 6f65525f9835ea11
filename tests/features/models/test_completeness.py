"""Models that are not whole are refused by name, before or after their weights are read."""

import shutil

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from langcortex.errors import LangcortexError, ModelError
from langcortex.features.models.completeness import check_folder
from langcortex.features.models.loading import check_model_files, load_model


@pytest.fixture
def changed(tmp_path):
    """Copy a model's folder and change its tensors."""

    def change(folder, edit):
        copy = tmp_path / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(folder, copy)
        tensors = load_file(copy / "model.safetensors")
        edit(tensors)
        save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})
        return str(copy)

    return change


def _without(*starts):
    def edit(tensors):
        for name in [n for n in tensors if n.startswith(starts)]:
            del tensors[name]

    return edit


@pytest.mark.parametrize(
    ("starts", "named"),
    [
        (("model.layers.1", "model.layers.2"), "layers.1.input_layernorm.weight"),
        (("model.layers.2.mlp.up_proj",), "layers.2.mlp.up_proj.weight"),
        (("model.norm",), "norm.weight"),
        (("model.embed_tokens",), "embed_tokens.weight"),
    ],
)
@pytest.mark.parametrize("head", [False, True])
def test_missing_tensors_are_refused_by_name(llama_folder, changed, starts, named, head):
    """Two of three blocks were missing, and the run ended with a score."""
    folder = changed(llama_folder, _without(*starts))
    with pytest.raises(ModelError, match=rf"not whole: \d+ tensors? \(.*{named}.* missing"):
        load_model(folder, device="cpu", head=head)
    assert load_model(folder, device="cpu", untrained_seed=0).n_layers == 3  # random weights need none


def test_a_missing_head_is_refused_only_where_it_is_used(llama_folder, gpt2_folder, changed):
    folder = changed(llama_folder, _without("lm_head"))
    assert load_model(folder, device="cpu").n_layers == 3
    with pytest.raises(ModelError, match=r"1 tensor \(lm_head.weight\) is missing"):
        load_model(folder, device="cpu", head=True)
    assert load_model(str(gpt2_folder), device="cpu", head=True).head is not None  # tied to the embeddings
    folder = changed(gpt2_folder, _without("transformer.wte"))
    for head in (False, True):
        with pytest.raises(ModelError, match=r"wte.weight"):
            load_model(folder, device="cpu", head=head)


def test_tensors_of_another_shape_and_of_unknown_blocks_are_refused_by_name(llama_folder, changed):
    def narrow(tensors):
        tensors["model.layers.0.mlp.up_proj.weight"] = torch.zeros(47, 32)

    def add_block(tensors):
        tensors["model.layers.3.mlp.up_proj.weight"] = torch.zeros(48, 32)

    def add_bias(tensors):
        tensors["model.layers.0.self_attn.q_proj.bias"] = torch.zeros(32)

    for edit, message in (
        (narrow, r"layers.0.mlp.up_proj.weight\) is of another shape"),
        (add_block, r"layers.3.mlp.up_proj.weight\) is in the file and not in the model"),
        (add_bias, r"layers.0.self_attn.q_proj.bias\) is in the file and not in the model"),
    ):
        folder = changed(llama_folder, edit)
        for head in (False, True):
            with pytest.raises(ModelError, match=message):
                load_model(folder, device="cpu", head=head)


SMALL = {"vocab_size": 340, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3}


@pytest.mark.parametrize(
    ("config", "loader"),
    [
        (transformers.BertConfig(intermediate_size=32, **SMALL), transformers.BertForMaskedLM),
        (transformers.RobertaConfig(intermediate_size=32, **SMALL), transformers.RobertaForMaskedLM),
        (
            transformers.LlamaConfig(intermediate_size=32, **SMALL),
            transformers.LlamaForSequenceClassification,
        ),
        (
            transformers.LlamaConfig(intermediate_size=32, tie_word_embeddings=True, **SMALL),
            transformers.LlamaForCausalLM,
        ),
    ],
)
def test_heads_and_poolers_that_no_layer_passes_through_are_no_missing_tensors(
    llama_folder, tmp_path, config, loader
):
    loader(config).save_pretrained(tmp_path)
    transformers.AutoTokenizer.from_pretrained(llama_folder).save_pretrained(tmp_path)
    assert load_model(str(tmp_path), device="cpu").n_layers == 2


@pytest.fixture
def sharded(llama_folder, tmp_path):
    """Save a model in many files."""
    folder = tmp_path / "sharded"
    model = transformers.AutoModelForCausalLM.from_pretrained(llama_folder)
    model.save_pretrained(folder, max_shard_size="10KB")
    transformers.AutoTokenizer.from_pretrained(llama_folder).save_pretrained(folder)
    assert load_model(str(folder), device="cpu").n_layers == 3
    return folder


def test_a_file_of_several_that_is_missing_or_cut_short_is_one_sentence(sharded):
    second = sorted(sharded.glob("*.safetensors"))[1]
    whole = second.read_bytes()
    for size in (len(whole) - 1, len(whole) // 2, 12, 5, 0):
        second.write_bytes(whole[:size])
        for refuse in (lambda: load_model(str(sharded)), lambda: check_model_files(str(sharded))):
            with pytest.raises(ModelError, match=rf"{second.name} break off or are damaged") as error:
                refuse()
            assert "\n" not in str(error.value)
    second.unlink()
    with pytest.raises(ModelError, match=rf"lacks 1 of its \d+ files of weights: {second.name}"):
        load_model(str(sharded))
    index = sharded / "model.safetensors.index.json"
    index.write_text("{}")
    with pytest.raises(ModelError, match=r"index.json is no list of weights"):
        load_model(str(sharded))
    index.unlink()
    with pytest.raises(ModelError, match=r"but not their list"):
        load_model(str(sharded))


def test_folders_without_weights_tokenizer_or_configuration_are_one_sentence(llama_folder, tmp_path):
    for missing, message in (
        ("model.safetensors", "has no weights"),
        ("config.json", "has no config.json"),
        ("tokenizer*", "has no tokenizer"),
    ):
        copy = tmp_path / missing.strip("*")
        shutil.copytree(llama_folder, copy, ignore=shutil.ignore_patterns(missing))
        for refuse in (load_model, check_model_files):
            with pytest.raises(ModelError, match=message) as error:
                refuse(str(copy))
            assert "\n" not in str(error.value)
    check_folder(tmp_path / "model.safetensors", weights=False)


def test_older_weights_and_pointers_of_git_lfs(llama_folder, tmp_path):
    copy = tmp_path / "bin"
    shutil.copytree(llama_folder, copy, ignore=shutil.ignore_patterns("*.safetensors"))
    path = copy / "pytorch_model.bin"
    torch.save(load_file(llama_folder / "model.safetensors"), path)
    assert load_model(str(copy), device="cpu").n_layers == 3
    whole = path.read_bytes()
    for content, message in (
        (whole[: len(whole) // 2], "pytorch_model.bin break off"),
        (b"", "pytorch_model.bin break off"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "git lfs pull"),
    ):
        path.write_bytes(content)
        with pytest.raises(ModelError, match=message):
            load_model(str(copy))


def test_random_damage_to_a_folder_ends_in_a_sentence(llama_folder, tmp_path, rng):
    """Every file cut short or overwritten somewhere: a sentence, or a model; never another exception."""
    sentences = []
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"):
        whole = (llama_folder / name).read_bytes()
        for trial in range(6):
            copy = tmp_path / f"{name}-{trial}"
            shutil.copytree(llama_folder, copy)
            content = bytearray(whole)
            if trial % 2:
                content = content[: int(rng.integers(len(content)))]
            else:
                place = int(rng.integers(min(len(content), 2000) - 4))
                content[place : place + 4] = rng.bytes(4)
            (copy / name).write_bytes(bytes(content))
            try:
                load_model(str(copy), device="cpu")
            except LangcortexError as error:
                sentences.append(str(error))
    assert len(sentences) > 12
    assert not any("\n" in sentence for sentence in sentences)
