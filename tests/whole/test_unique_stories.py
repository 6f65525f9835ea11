"""Unique variance in a real brain: one listener's stories, a trained model, its untrained twin, word count and position."""

from __future__ import annotations

from pathlib import Path

import pytest

from langcortex.results.variance_partition import ABOVE, PartitionResult
from langcortex.study.run import run_study
from langcortex.study.settings_file import read_study

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "stories_uts02" / "study.toml"
SETTINGS = (
    "features.layers=[12,15,18]",
    "models.0.untrained=1",
    'features.controls=["word_count","position"]',
    # all 23 stories take turns in six groups, so that there are 23 units and not three
    "protocol.test_runs=[]",
    "protocol.folds=6",
    "protocol.inner=4",
    # two delays and 200 components a band keep it to about six minutes, after two passes of the model over the words
    "design.delays=[4.0,6.0]",
    "protocol.pca=200",
    "protocol.n_nulls=0",
    "partition=true",
)


@pytest.fixture(scope="module")
def found(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> PartitionResult:
    folder = shared_data / "stories_uts02"
    if not folder.is_dir():
        pytest.skip(f"the stories are absent: no folder {folder}")
    output = tmp_path_factory.mktemp("stories")
    results = run_study(read_study(EXAMPLE, [f"data.path={folder}", f"output={output}", *SETTINGS]))
    (one,) = results.partitions
    return one


@pytest.mark.slow
@pytest.mark.parametrize("region", ["first10", "all50"])
def test_middle_layers_explain_what_words_position_and_the_untrained_twin_do_not(
    found: PartitionResult, region: str
) -> None:
    assert (found.unit, found.n_units) == ("runs", 23)
    assert found.bands == ("smollm2", "word_count", "position", "untrained")
    unique = found.get(region, "smollm2", "unique")
    assert unique.value > 0
    assert unique.low > 0
    assert unique.p_corrected < 0.01


@pytest.mark.slow
@pytest.mark.parametrize("region", ["first10", "all50"])
def test_the_untrained_twin_is_below_the_trained_model(found: PartitionResult, region: str) -> None:
    above = found.get(region, "smollm2", ABOVE)
    assert above.value > 0
    assert above.p_corrected < 0.01
    assert found.get(region, "untrained", "alone").value < found.get(region, "smollm2", "alone").value
