"""A study takes what its models give: twins, heads and surprisal become curves and controls by name."""

import pandas as pd
import pytest

from langcortex.errors import SettingsError
from langcortex.study.run import run_study
from langcortex.study.settings_file import make_study, read_study

MODEL = {"source": "x/big", "name": "base", "dtype": "bfloat16", "device": "offload", "quantization": "4bit"}


def test_untrained_twins_are_models_of_their_own_with_seeds_from_0():
    study = make_study({"models": [{**MODEL, "untrained": 2}, {"source": "x/other"}]})
    assert [(m.label, m.untrained_seed, m.untrained) for m in study.models] == [
        ("base", None, 0), ("base-untrained-0", 0, 0), ("base-untrained-1", 1, 0), ("other", None, 0),
    ]  # fmt: skip
    trained, twin = study.models[:2]
    assert (trained.device, trained.quantization) == ("offload", "4bit")
    assert (twin.device, twin.quantization, twin.dtype) == ("auto", None, "bfloat16")


def test_pairs_may_name_heads_and_twins():
    values = {
        "models": [{**MODEL, "untrained": 1}],
        "features": {"take": ["states", "heads"]},
        "compare": {"pairs": [["base", "base-heads"], ["base-untrained-0", "base"]]},
    }
    assert make_study(values).features.curves("base") == {"states": "base", "heads": "base-heads"}
    with pytest.raises(
        SettingsError, match="'base-mlp', but the models are: base, base-heads, base-untrained-0"
    ):
        make_study({**values, "compare": {"pairs": [["base", "base-mlp"]]}})


def test_attention_maps_are_no_setting():
    with pytest.raises(SettingsError, match=r"'features.take.0' should be 'states', 'heads'"):
        make_study({"features": {"take": ["attention"]}})


def test_heads_are_a_curve_of_their_own_and_surprisal_a_control(planted_corpus, tmp_path):
    path = planted_corpus(tmp_path / "data", subjects=("01",))
    overrides = [
        'features.take=["states", "heads", "surprisal"]', "features.bos=true", "protocol.n_nulls=0",
        'features.prefix="Listen. "', "models.1.untrained=1", 'features.pool="duration"',
    ]  # fmt: skip
    study = read_study(path, [*overrides, f'output="{tmp_path / "out"}"'])
    results = run_study(study)
    assert results.models == (
        "llama", "gpt2", "gpt2-untrained-0", "llama-heads", "gpt2-heads", "gpt2-untrained-0-heads",
    )  # fmt: skip
    assert results.layers["llama"].tolist() == [0, 1, 2, 3]
    assert results.layers["llama-heads"].tolist() == [1, 2, 3]
    assert set(results.controls) == {
        "duration",
        "llama/surprisal",
        "gpt2/surprisal",
        "gpt2-untrained-0/surprisal",
    }
    assert set(results.scores.model) == set(results.models) | set(results.controls)
    table = pd.read_csv(tmp_path / "out" / "tokens.tsv", sep="\t")
    assert table.groupby("model").size().to_dict() == {"llama": 4, "gpt2": 4, "gpt2-untrained-0": 4}
    assert table.words.sum() == 3 * results.counts["words"]
    assert results.audit["llama"]["words"] == results.counts["words"]
