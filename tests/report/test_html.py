"""The report states the results, warns of leaks, needs no other file, and is never left half written."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib import image as matplotlib_image

from langcortex.brain.space import Space
from langcortex.encoding.protocol import REPLICATION_LEAKS, Protocol
from langcortex.errors import StoreError
from langcortex.report import html, panels, sections, tables, write_report
from langcortex.results.provenance import Records
from langcortex.results.results import COLUMNS, Results
from langcortex.stats.comparison import compare, correct_over_pairs
from langcortex.stats.layer_curve import analyse_layer_curve
from langcortex.stats.noise_ceiling import InterSubjectCeiling, inter_subject_ceiling
from langcortex.stats.repeat_ceiling import RepeatCeiling, estimate_signal_power
from langcortex.study.group_tests import compare_chosen_layers, group_tests, mixed_models
from langcortex.study.settings_file import make_study

MakeResults = Callable[..., Results]
LEAKING = Protocol(name="replication-2025", leaks=REPLICATION_LEAKS, n_nulls=0)


@pytest.fixture(scope="session")
def make_results() -> MakeResults:
    """Make results of two models, five layers and six named targets, one of them undefined."""

    def make(n_subjects: int = 8, n_layers: int = 5, **changes: object) -> Results:
        rng = np.random.default_rng(3)
        subjects = [f"sub-{i + 1:02d}" for i in range(n_subjects)]
        front = np.array([True, True, True, False, False, False])
        space = Space("columns", np.array([f"roi-{i}" for i in range(6)]), regions={"front": front})
        areas = {"brain": np.ones(6, dtype=bool), "front": front}
        rows, maps, chosen = [], {}, {}
        for model, gain in (("gpt", 1.0), ("llama", 1.5), ("word_count", 0.2)):
            layers = range(n_layers) if model != "word_count" else [None]
            maps[model] = np.zeros((len(layers), 6))
            for subject in subjects:
                for i, layer in enumerate(layers):
                    by_run = gain * rng.normal(0.05 + 0.01 * i, 0.004, (3, 6))
                    by_run[:, 1] = np.nan
                    maps[model][i] += by_run.mean(axis=0) / n_subjects
                    scored = [("all", by_run.mean(axis=0)), *((f"run-{k}", v) for k, v in enumerate(by_run))]
                    metrics = ("r", "r2", "r_chosen", "r2_chosen") if i == 3 else ("r", "r2")
                    rows += [
                        (subject, run, model, None if "chosen" in metric else layer, area, metric, value)
                        for run, values in scored
                        for metric in metrics
                        for area, inside in areas.items()
                        for value in [float(np.nanmean(values[inside]) ** (2 if "2" in metric else 1))]
                    ]
            if model != "word_count":
                chosen[model] = maps[model][3]
        p = {m: np.array([0.001, np.nan, 0.002, 0.003, 0.9, 0.8]) for m in chosen}
        results = Results(
            name="A study", settings={"seed": 1, "models": [{"source": "gpt"}]}, protocol=Protocol(),
            counts={"words": 1234, "sentences": 99, "runs": 3,
                    "subjects": {s: {"rows": 98, "targets": 6, "targets without data": 1} for s in subjects}},
            models=("gpt", "llama"), controls=("word_count",), scores=pd.DataFrame(rows, columns=COLUMNS),
            maps=maps, layers=dict.fromkeys(chosen, np.arange(n_layers)), chosen=chosen, p=p,
            p_corrected={m: np.array([0.01, np.nan, 0.04, 0.06, 1.0, 1.0]) for m in chosen},
            delays={s: [4.0, 6.0, 6.0] for s in subjects},
            chosen_layers={m: {s: [3, 3, 4] for s in subjects} for m in chosen}, comparisons=(), space=space,
            versions={"langcortex": "0.1.0"}, warnings=("Mind the gap.",), audit={"gpt": {"split words": 7}},
        )  # fmt: skip
        a, b = results.curve("gpt").to_numpy(), results.curve("llama").to_numpy()
        comparison = compare(a, b, np.arange(n_layers), ("gpt", "llama"), results.unit, rng)
        return dataclasses.replace(results, **{"comparisons": (comparison,), **changes})

    return make


@pytest.fixture(scope="session")
def everything(make_results: MakeResults) -> Results:
    """Results of a study of which everything was asked: seven layers, eight subjects, ceilings of both kinds."""
    study = make_study({"models": [{"source": "gpt"}], "inference": {"n_resamples": 200}})
    rng = np.random.default_rng(4)
    plain = make_results(n_layers=7)
    maps = {m: list(plain.chosen[m] + 0.01 * rng.standard_normal((8, 6))) for m in plain.models}
    people, _ = group_tests(study, plain, maps)
    mixed_model, _ = mixed_models(study, plain)
    curves = [
        analyse_layer_curve(
            plain.curve(m).to_numpy(), np.arange(7), m, "subjects", rng, rng.standard_normal((20, 7)), 200
        )
        for m in plain.models
    ]
    shared = rng.standard_normal((60, 6)) + rng.standard_normal((8, 60, 6))
    kinds = inter_subject_ceiling(lambda part: shared[:, :, part], 8, 6, np.zeros(60), rng, ("perfect", "others", "average"), 100,
                    regions=plain.space.regions)  # fmt: skip
    average = plain.scores[plain.scores.subject == "sub-01"].assign(subject="average")
    repeat_ceiling = RepeatCeiling(
        "sub-01",
        "run-0",
        8,
        estimate_signal_power(shared, rng, n_resamples=100, regions={}).ceiling,
        plain.chosen,
    )
    first, again = compare_chosen_layers(study, plain), plain.comparisons[0]
    second = dataclasses.replace(first[0], a="gpt", b="gpt-2")
    return dataclasses.replace(
        plain,
        people=people, mixed=mixed_model, curves=tuple(curves), repeats=(repeat_ceiling,),
        shared=InterSubjectCeiling(kinds["perfect"], kinds["others"], kinds["average"], tuple("abcdefgh")),
        scores=pd.concat([plain.scores, average], ignore_index=True), comparisons=(again,),
        comparisons_chosen=correct_over_pairs([first[0], second]),
    )  # fmt: skip


@pytest.fixture(scope="session")
def whole_page(everything: Results) -> str:
    return html.render(everything, list(panels.draw_pictures(everything)))


@pytest.fixture(scope="session")
def results(make_results: MakeResults) -> Results:
    return make_results()


@pytest.fixture(scope="session")
def folder(results: Results, tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("report")
    write_report(results, where)
    return where


@pytest.fixture(scope="session")
def page(folder: Path) -> str:
    return (folder / "report.html").read_text()


class Reader(HTMLParser):
    """Collects the text, and the addresses a browser would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.text: list[str] = []
        self.addresses: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [v or "" for k, v in attrs if k in ("src", "href", "srcset", "action", "data")]

    def handle_data(self, data: str) -> None:
        self.text.append(data.replace("\N{NO-BREAK SPACE}", " "))


def read(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    return reader


def render(results: Results) -> Reader:
    """Read a page without its pictures, which take seconds to draw."""
    return read(html.render(results, []))


def page_text(reader: Reader) -> str:
    return re.sub(r"\s+", " ", " ".join(reader.text))


def test_the_page_needs_no_other_file_and_no_network(page: str, folder: Path) -> None:
    reader = read(page)
    on_disk = sorted((folder / "figures").glob("*.png"))
    assert len(on_disk) >= 10
    assert len(reader.addresses) == len(on_disk)
    assert all(a.startswith("data:image/png;base64,") for a in reader.addresses)
    embedded = {base64.b64decode(a.partition(",")[2]) for a in reader.addresses}
    assert embedded == {path.read_bytes() for path in on_disk}
    assert not {"script", "link", "iframe", "a"} & set(reader.tags)
    assert "url(" not in page
    assert "@import" not in page


def test_the_page_is_small_enough_to_mail(folder: Path) -> None:
    assert (folder / "report.html").stat().st_size < 10_000_000


def test_figures_that_would_make_the_page_too_large_stay_on_disk(results: Results) -> None:
    drawings = [panels.Picture(f"{i}.png", "t", "c", bytes(3_000_000), 7.0) for i in range(5)]
    text = html.render(results, drawings)
    assert len(text.encode()) < 10_000_000
    assert text.count("data:image/png") == 2
    assert "see figures/4.png" in text


def test_only_the_page_and_its_figures_are_written(results: Results, folder: Path) -> None:
    assert {p.name for p in folder.iterdir()} == {"report.html", "figures"}
    assert not list(folder.rglob(".*"))


def test_figures_on_disk_have_150_dots_per_inch(folder: Path) -> None:
    png = (folder / "figures" / "layers_r.png").read_bytes()
    assert matplotlib_image.imread(io.BytesIO(png)).shape[:2] == (600, 1125)


def test_the_summary_states_the_numbers_of_the_results(results: Results) -> None:
    text = page_text(render(results))
    pooled = results.scores[(results.scores.run == "all") & (results.scores.region == "brain")]
    for model in results.models:
        best = results.best_layer(model)
        mine = pooled[pooled.model == model]
        r = mine[(mine.metric == "r") & (mine.layer == best)].value.mean()
        chosen = mine[mine.metric == "r_chosen"].value.mean()
        assert (
            f"{model} has its highest mean r over the brain at layer {best} (5 layers were fitted): r = {r:.3f}."
            in text
        )
        assert f"without its held-out rows, has r = {chosen:.3f}." in text
    assert "8 subjects in 3 runs: 1,234 words, 99 sentences, 98 rows per subject and 6 targets" in text
    assert "Of 5 targets, this score is above chance in 2 with p ≤ .05 corrected over targets" in text
    assert "3 at a false-discovery rate of .05 and 3 with uncorrected p ≤ .05 (0 expected by chance)" in text
    assert "1 undefined target is left out." in text
    assert results.comparisons[0].verdict in text


def test_the_score_table_holds_means_over_subjects_and_counts_what_is_undefined(results: Results) -> None:
    table = tables.make_score_table(results)
    assert table.head == ("Feature space", "Layer", "brain", "front")
    r, r2, undefined = table.groups
    best = results.best_layer("llama")
    pooled = results.scores[(results.scores.run == "all") & (results.scores.model == "llama")]
    row = pooled[(pooled.metric == "r") & (pooled.layer == best)].groupby("region").value.mean()
    assert ("llama", f"{best} (best)", f"{row['brain']:.3f}", f"{row['front']:.3f}") in r.rows
    assert len(r.rows) == len(r2.rows) == 5
    assert set(undefined.rows) >= {("word_count", "control", "1 of 6", "1 of 3")}


def test_the_summary_warns_of_too_few_nulls_for_a_correction(make_results: MakeResults) -> None:
    """No target found must not read as no effect where 99 shifts cannot reach a small enough p."""
    p = np.where(np.arange(1000) < 20, 1 / 100, 0.9)
    few = make_results(p={"gpt": p}, protocol=Protocol(n_nulls=99))
    text = page_text(render(few))
    assert (
        "0 at a false-discovery rate of .05 and 20 with uncorrected p ≤ .05 (50 expected by chance)" in text
    )
    assert "With 99 nulls the smallest possible p is 0.01" in text
    many = make_results(p={"gpt": p / 1000}, protocol=Protocol(n_nulls=99_999))
    assert "raise protocol.n_nulls" not in page_text(render(many))


def test_the_comparison_table_has_every_layer(results: Results) -> None:
    (table,) = next(s for s in sections.make_sections(results) if s.title == "Comparison by layer").tables
    c = results.comparisons[0]
    rows = table.groups[0].rows
    assert [row[0] for row in rows] == ["0", "1", "2", "3", "4"]
    assert [row[1] for row in rows] == [f"{d:.4f}".replace("-", "−") for d in c.effect]
    assert [row[6] == "★" for row in rows] == (c.p_corrected <= 0.05).tolist()


def test_the_page_shows_counts_warnings_audit_delays_and_versions(page: str) -> None:
    text = page_text(read(page))
    for part in ("Mind the gap.", "targets without data", "split words", "4, 6, 6", "3, 3, 4", "0.1.0"):
        assert part in text


def test_captions_state_unit_spread_and_undefined_targets(results: Results, page: str) -> None:
    captions = re.findall(r"<figcaption>(.*?)</figcaption>", page, re.DOTALL)
    assert "mean over 8 subjects; band: ± 1 standard error of the mean" in captions[0]
    assert all("undefined" in c.lower() for c in captions)
    assert all("Pearson r" in c or "R²" in c for c in captions)


def test_a_long_table_is_capped_and_says_where_the_rest_is(results: Results) -> None:
    many = pd.concat([results.scores[results.scores.run == "all"]] * 20)
    table = tables.make_full_table(dataclasses.replace(results, scores=many))
    assert len(table.groups[0].rows) == tables.MAX_ROWS
    assert f"of {len(many):,} rows; scores.tsv has all" in table.note


def test_a_protocol_without_leaks_has_no_banner(page: str) -> None:
    assert "known to leak" not in page


def test_a_leaking_protocol_has_a_banner_with_every_leak(make_results: MakeResults) -> None:
    page = html.render(make_results(protocol=LEAKING), [])
    banner = page[page.index('class="leak"') : page.index("<h1>")]
    assert "say nothing about the brain" in banner
    assert all(leak in banner for leak in REPLICATION_LEAKS)


def test_every_figure_of_a_leaking_protocol_has_a_red_line(make_results: MakeResults) -> None:
    """The foot of each picture has red letters, and no picture of another protocol has."""

    def red_letters(png: bytes) -> bool:
        foot = matplotlib_image.imread(io.BytesIO(png))[-36:, :, :3]
        return bool((np.abs(foot - [0xB0 / 255, 0, 0x20 / 255]).max(axis=2) < 0.02).sum() > 100)

    leaking = list(panels.draw_pictures(make_results(protocol=LEAKING)))
    assert leaking
    assert all(red_letters(p.png) for p in leaking)
    assert not any(red_letters(p.png) for p in panels.draw_pictures(make_results()))


def test_methods_of_a_leaking_protocol_claim_no_clean_training(make_results: MakeResults) -> None:
    text = page_text(render(make_results(protocol=LEAKING)))
    assert "training rows of each outer fold only" not in text
    assert "must not be used to draw conclusions" in text


def test_text_from_outside_is_escaped(make_results: MakeResults) -> None:
    evil = "<b>x</b><script>alert(1)</script>"
    results = make_results(name=evil, warnings=(evil,), settings={"name": evil}, versions={evil: evil})
    reader = render(results)
    assert "script" not in reader.tags
    assert "b" not in reader.tags
    assert evil in page_text(reader)


def test_figures_of_models_with_strange_names_have_distinct_files(results: Results) -> None:
    files: set[str] = set()
    names = [panels._unique_file(name, files) for name in ("map_a/b", "map_a:b", "../x", "MAP_A-B")]
    assert names == ["map_a-b.png", "map_a-b-2.png", "x.png", "MAP_A-B-3.png"]


def test_one_subject_says_that_runs_are_the_unit(make_results: MakeResults) -> None:
    results = make_results(n_subjects=1)
    captions = " ".join(p.caption for p in panels.draw_pictures(results))
    assert "3 runs of one subject, which says nothing about other people" in captions


def test_results_without_maps_comparisons_and_tests_make_a_page(make_results: MakeResults) -> None:
    """What is absent is left out or said to be absent; nothing crashes."""
    bare = make_results(
        maps={}, chosen={}, p={}, p_corrected={}, chosen_layers={}, delays={}, comparisons=(), space=None, controls=(),
        audit={}, warnings=(), counts={},
    )  # fmt: skip
    text = page_text(render(bare))
    assert "There are no maps over subjects" in text
    assert "not known" in text
    assert "Phipson" not in text
    assert "Nichols" not in text
    assert [p.file for p in panels.draw_pictures(bare)][:2] == ["layers_r.png", "layers_r2.png"]


def test_results_without_a_defined_score_make_a_page(make_results: MakeResults) -> None:
    results = make_results()
    nothing = results.scores.assign(value=np.nan)
    maps = {k: np.full_like(v, np.nan) for k, v in results.maps.items()}
    empty = dataclasses.replace(results, scores=nothing, maps=maps, chosen={}, p={}, comparisons=())
    assert "gpt has no defined score." in page_text(render(empty))
    assert list(panels.draw_pictures(empty))


def test_methods_follow_the_protocol(make_results: MakeResults) -> None:
    protocol = Protocol(folds=2, pca=50, confounds=("word_count",), relative=False, n_nulls=250)
    text = page_text(render(make_results(protocol=protocol)))
    for part in (
        "One of 2 groups",
        "50 principal components",
        "word_count was regressed",
        "as scikit-learn's α",
        "250 nulls",
        "shifted circularly",
    ):
        assert part in text
    for doi in ("10.2202/1544-6115.1585", "10.1002/hbm.1058", "10.1007/BF01068419", "zenodo.8397156"):
        assert doi in text


def test_every_field_of_the_protocol_is_listed(results: Results) -> None:
    text = page_text(render(results))
    assert all(field.name in text for field in dataclasses.fields(Protocol))


def test_settings_read_back_as_toml(results: Results) -> None:
    import tomllib

    settings = {"seed": 1, "models": [{"source": "a b", "n": [1, 2]}], "x": {"y": {"z": True}, "w": None}}
    assert tomllib.loads(tables.format_toml(settings)) == {
        "seed": 1, "models": [{"source": "a b", "n": [1, 2]}], "x": {"y": {"z": True}},
    }  # fmt: skip
    json.dumps(settings)


def test_a_full_disk_leaves_no_half_written_file(
    results: Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = panels.Picture("a.png", "t", "c", b"png", 7.0)
    monkeypatch.setattr(html, "draw_pictures", lambda results: [picture])

    def full(self: Path, text: str, encoding: str) -> int:
        self.write_bytes(text[: len(text) // 2].encode())
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(StoreError, match=r"report\.html could not be written: No space left"):
        write_report(results, tmp_path)
    assert [p.name for p in tmp_path.rglob("*") if p.is_file()] == ["a.png"]


# how each number was tested

TESTED = re.compile(r"\bp (=|≤|<|>|equivalent|corrected)|95 %|q ≤|\bp$")
BLOCKS = re.compile(r"<(p|li|figcaption|pre)\b[^>]*>(.*?)</\1>", re.S)
CITED = re.compile(r"\bT\d+\b")


def blocks(page: str) -> list[str]:
    """List every paragraph, list item and caption of a page, without references, settings and images."""
    page = page[: page.index("<h2>References</h2>")]
    page = re.sub(r"<img[^>]*>", "", page, flags=re.S)
    return [re.sub(r"<[^>]+>|\s+", " ", text) for kind, text in BLOCKS.findall(page) if kind != "pre"]


def test_every_sentence_with_a_p_or_an_interval_cites_its_record(whole_page: str) -> None:
    """Summary, sections, captions, methods: whoever writes a p or "95 %" cites its line of the table of tests."""
    tested = [text for text in blocks(whole_page) if TESTED.search(text)]
    assert len(tested) >= 15
    assert [text for text in tested if not re.search(r"\[T\d", text)] == []


def test_every_table_with_a_p_or_an_interval_cites_its_record(everything: Results) -> None:
    all_tables = [
        t
        for s in sections.make_sections(everything)
        for t in s.tables
        if s.title != "How each number was tested"
    ]
    with_p = [t for t in all_tables if any(TESTED.search(cell) for cell in t.head)]
    assert len(with_p) >= 9
    assert [t.title for t in with_p if not re.search(r"\[T\d", t.note)] == []


def test_every_record_is_cited_and_every_citation_has_a_record(everything: Results, whole_page: str) -> None:
    cited = {
        name
        for text in blocks(whole_page)
        for part in re.findall(r"\[(T[^]]*)\]", text)
        for name in CITED.findall(part)
    }
    assert cited == {record.name for record in Records(everything)}


def test_a_record_states_unit_number_correction_and_seed(everything: Results) -> None:
    for record in Records(everything):
        assert all((record.unit, record.how, record.n, record.correction, record.seed)), record
        assert re.fullmatch(r"[\d,]+|none: a formula", record.n), record
        assert record.seed == "none" or re.search(r"\d|caller", record.seed), record
    by_name = {r.of: r for r in Records(everything)}
    assert (
        by_name["gpt − llama at the layer chosen in training: p and corrected p"].correction
        == "Holm over 2 pairs"
    )
    assert by_name["gpt, over subjects: p of targets"].unit == "subjects"


def test_ceilings_have_intervals_and_shares_or_a_reason_for_none(everything: Results) -> None:
    (section,) = [s for s in sections.make_sections(everything) if s.title == "Noise ceilings"]
    between_people, *_ = section.tables
    assert [t.title.split(", ")[1] for t in section.tables] == ["8 subjects", "average", "sub-01"]
    assert [row[:2] for g in between_people.groups for row in g.rows] == [
        (m, region) for m in ("gpt", "llama") for region in ("brain", "front")
    ]
    assert "No subject is part of the mean it is compared with" in " ".join(section.paragraphs)
    assert all(row[5].endswith("%") for row in between_people.groups[0].rows)
    silent = np.random.default_rng(0).standard_normal((8, 60, 6))
    nothing = inter_subject_ceiling(
        lambda part: silent[:, :, part], 8, 6, np.zeros(60), np.random.default_rng(1), n_resamples=100
    )
    refused = dataclasses.replace(
        everything,
        shared=InterSubjectCeiling(nothing["perfect"], nothing["others"], None, ("a",)),
        repeats=(),
    )
    (section,) = [s for s in sections.make_sections(refused) if s.title == "Noise ceilings"]
    assert {row[5] for row in section.tables[0].groups[0].rows} == {"contains 0"}


def test_many_parcels_keep_the_page_readable(make_results: MakeResults) -> None:
    """Four hundred regions: the highest and the lowest are shown, and where the others are."""
    plain = make_results(n_subjects=1)
    part = plain.scores[plain.scores.region == "front"]
    many = [part.assign(region=f"parcel-{i:03d}", value=part.value + i / 1000) for i in range(400)]
    results = dataclasses.replace(plain, scores=pd.concat([plain.scores, *many], ignore_index=True), space=None, maps={},
                                  chosen={}, p={}, p_corrected={})  # fmt: skip
    head = tables.make_score_table(results).head
    assert len(head) <= 2 + tables.MAX_REGIONS
    assert {"brain", "parcel-000", "parcel-399"} <= set(head)
    assert "Of 402 regions" in tables.make_score_table(results).note


def test_a_verdict_over_runs_states_what_runs_cannot_show(make_results: MakeResults) -> None:
    text = page_text(render(make_results(n_subjects=1)))
    assert "share training data, a story and mostly a person" in text
