"""What a study says about the words that it reads."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from langcortex.errors import SettingsError
from langcortex.stimulus.labels import PAUSES
from langcortex.study.check import check_study
from langcortex.study.corpus import open_corpus
from langcortex.study.run import run_study
from langcortex.study.settings import Study
from langcortex.study.settings_file import make_study

MakeStudy = Callable[..., Study]


def _tables(folder: Path) -> dict[Path, pd.DataFrame]:
    return {path: pd.read_csv(path, sep="\t") for path in sorted((folder / "words").glob("*.tsv"))}


def _write(tables: dict[Path, pd.DataFrame]) -> None:
    for path, table in tables.items():
        table.to_csv(path, sep="\t", index=False)


def _write_textgrid(path: Path, tiers: dict[str, list[tuple[float, float, str]]]) -> None:
    end = max(stop for rows in tiers.values() for _, stop, _ in rows)
    lines = [
        'File type = "ooTextFile"',
        'Object class = "TextGrid"',
        "",
        "0",
        f"{end}",
        "<exists>",
        f"{len(tiers)}",
    ]
    for name, rows in tiers.items():
        lines += ['"IntervalTier"', f'"{name}"', "0", f"{end}", f"{len(rows)}"]
        lines += [f'{start}\n{stop}\n"{text}"' for start, stop, text in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def test_the_tier_and_what_was_mended_are_said_by_check_and_by_the_results(
    folder: Path, study: MakeStudy
) -> None:
    for path, table in _tables(folder).items():
        rows = [(t, t + d, str(w)) for w, t, d in zip(table.word, table.onset, table.duration, strict=True)]
        phones = [(start, start + (stop - start) / 2, "f") for start, stop, _ in rows]
        rows[0] = (rows[0][0], rows[1][0] + 0.0005, rows[0][2])
        _write_textgrid(path.with_suffix(".TextGrid"), {"phones": phones, "words": rows})
    chosen = study(folder, story={"files": "words/{run}.TextGrid"})
    found = check_study(chosen)
    n_words = sum(int((table.word != "#").sum()) for table in _tables(folder).values())
    assert found.problems == []
    assert found.facts["tier"] == f"'words' (3 TextGrids, {n_words:,} words)"
    mended = [fact for fact in found.facts.values() if "overlapped the next by up to 0.5 ms" in fact]
    assert len(mended) == 3
    assert set(mended) <= set(run_study(chosen).warnings)


def test_milliseconds_are_one_problem(folder: Path, study: MakeStudy) -> None:
    _write(
        {
            p: t.assign(onset=(1e3 * t.onset).round(), duration=(1e3 * t.duration).round())
            for p, t in _tables(folder).items()
        }
    )
    (problem,) = check_study(study(folder)).problems
    assert "the times look like milliseconds, not seconds" in problem


@pytest.mark.parametrize("rows", ["scans", "sentences"])
def test_onsets_only_are_impulses_in_a_study(folder: Path, study: MakeStudy, rows: str) -> None:
    _write({p: t[t.word != "#"].assign(duration=0.0) for p, t in _tables(folder).items()})
    chosen = study(
        folder,
        design={"rows": rows, "response": "glover"} if rows == "scans" else {"rows": rows},
        features={"controls": ["word_count", "position_in_sentence", "letters"]},
    )
    results = run_study(chosen)
    assert any("All words last 0 s" in warning for warning in results.warnings)
    means = results.scores[(results.scores.run == "all") & (results.scores.metric == "r")]
    assert set(means.model) == {"word_count", "position_in_sentence", "letters"}
    assert np.isfinite(means["value"]).all()


def test_pauses_and_language_are_settings(folder: Path, study: MakeStudy) -> None:
    _write({p: t.assign(word=t.word.replace("#", "xxx")) for p, t in _tables(folder).items()})
    words = open_corpus(study(folder)).story()
    assert sum(words.left_out.values()) == 0
    chosen = study(folder, story={"pauses": [*PAUSES, "xxx"], "language": "en"})
    assert sum(open_corpus(chosen).story().left_out.values()) == int((words.text == "xxx").sum()) > 0
    for setting in ({"pauses": ["x"]}, {"language": "en"}):
        with pytest.raises(SettingsError, match=r"story\.(pauses|language) belongs to"):
            open_corpus(make_study({"data": {"corpus": "pereira"}, "story": setting}, folder=folder))
