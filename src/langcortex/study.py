"""The whole job: from settings to results. The only place that decides what is kept and found again."""

from __future__ import annotations

import dataclasses
import functools
import importlib.metadata
import os
import platform
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

import langcortex
from langcortex.advice import advice
from langcortex.chance import draw_shifts, p_corrected, p_values
from langcortex.clock import find_lag
from langcortex.comparison import Comparison, compare
from langcortex.datasets import Corpus
from langcortex.design import Design
from langcortex.encoding import (
    Encoding,
    assemble_chosen,
    choose_delays,
    choose_layers,
    fit_layers,
    region_means,
    score,
)
from langcortex.errors import SettingsError
from langcortex.features import Features, Layers, extract, load_model
from langcortex.features.extraction import Pace
from langcortex.features.weights import cache_folder
from langcortex.nulls import null_chunks
from langcortex.plans import Plans
from langcortex.protocol import Protocol
from langcortex.recording import Recording
from langcortex.replication import N_VOXELS, replicate_run, units_kept
from langcortex.report import write_report
from langcortex.results import COLUMNS, Results, write_tables
from langcortex.settings import ModelSettings, Study
from langcortex.sources import (
    Runs,
    align_subject,
    check_names,
    everyone,
    make_controls,
    open_corpus,
    own_story,
    protocol_of,
    read_subject,
    read_words,
    refuse,
    remarks,
    sampled_lag,
    source_of,
)
from langcortex.space import Space
from langcortex.store import Store, digest, written_whole
from langcortex.story import Story

FITTING = 1  # raised whenever the same design and protocol would give other numbers
SCRATCH_BYTES = 5e8  # nulls of all targets beyond which they wait on disk
BATCH_BYTES = 5e8  # memory for the prepared features of the layers that one thread fits together
N_PROBES = 3  # layers a model that speak for it when delays are chosen

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much is done, and how much there is."""


@dataclass(frozen=True, eq=False)
class _Spaces:
    """Every feature space of a study by name, and which belong to which model."""

    tables: _Tables
    of_model: Mapping[str, tuple[str, ...]]
    controls: tuple[str, ...]
    revisions: Mapping[str, str]
    audit: Mapping[str, Mapping[str, int]]
    kept_units: Mapping[str, np.ndarray]


class _Tables(Mapping[str, Features]):
    """Controls in memory and layers on disk, as one mapping."""

    def __init__(self, controls: Mapping[str, Features], models: Sequence[Layers]) -> None:
        self.controls, self.models = controls, models
        self.sources: list[Mapping[str, Features]] = [controls, *models]

    def __getitem__(self, name: str) -> Features:
        for source in self.sources:
            if name in source:
                return source[name]
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        return (name for source in self.sources for name in source)

    def __len__(self) -> int:
        return sum(len(source) for source in self.sources)


def run_study(study: Study, progress: Progress | None = None, corpus: Corpus | None = None) -> Results:
    """Run a study: read, extract, align, fit, score, compare.

    Finished features go to the user's cache and finished fits to ``kept/`` in the output folder, each under a
    name made of everything that decides it: a study that was interrupted goes on where it stopped, and a
    study that was changed computes what the change touches.

    Parameters
    ----------
    study : from `langcortex.settings.read_study`
    progress : called as work is done
    corpus : in the place of the one that the study names

    Returns
    -------
    Results; nothing but ``kept/`` has been written
    """
    tell = progress or (lambda what, done, total: None)
    if not study.models and not study.features.controls:
        raise SettingsError("The study names neither a model nor a control: there is nothing to fit.")
    corpus = open_corpus(study) if corpus is None else corpus
    protocol = protocol_of(study, corpus)
    if protocol.name == "replication-2025" and not study.models:
        raise SettingsError("The preset 'replication-2025' needs a model.")
    check_names(study, corpus)
    story, unmatched = read_words(study, corpus)
    if unmatched is not None:
        _write_unmatched(unmatched, study.output_folder)
    subjects = list(corpus.subjects())
    if not subjects:
        raise SettingsError("The study has no subjects.")
    with threadpool_limits(limits=1):
        if study.recording.clock == "refuse":  # before a model reads for hours
            lag = sampled_lag(study, corpus, story, subjects)
            if lag is not None and lag.off:
                refuse(lag)
        spaces = _make_spaces(study, corpus, story, protocol, tell)
        do = _replicate if protocol.name == "replication-2025" else _encode
        results = do(study, corpus, story, subjects, spaces, protocol, tell)
    return dataclasses.replace(
        results, source=source_of(corpus), warnings=(*results.warnings, *remarks(corpus))
    )


def _write_unmatched(table: pd.DataFrame, folder: Path) -> None:
    """Keep what of the story's text and labels did not align."""
    folder.mkdir(parents=True, exist_ok=True)
    with written_whole(folder / "text_alignment.tsv") as draft:
        table.to_csv(draft, sep="\t", index=False, na_rep="n/a")


def write_results(results: Results, folder: Path) -> Path:
    """Write tables, maps, figures and the report; every file whole or not at all.

    Returns
    -------
    the report's path
    """
    write_tables(results, folder)
    write_report(results, folder)
    return folder / "report.html"


def n_jobs(study: Study) -> int:
    """Count the threads a study uses: what it says, or every core this process may run on."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return study.jobs or cores or 1


def _make_spaces(study: Study, corpus: Corpus, story: Story, protocol: Protocol, tell: Progress) -> _Spaces:
    """Extract the features of every model, one model in memory at a time."""
    models: dict[str, Layers] = {}
    revisions, kept = {}, {}
    for settings in study.models:
        label = settings.label
        models[label], revisions[label], kept[label] = _extract(study, story, settings, protocol, tell)
    if models:
        _write_audit(models, study.output_folder)
    of_model = {
        study.features.curves(label)[kind]: layers.of(kind)
        for kind in ("states", "heads", "mlp")
        for label, layers in models.items()
        if layers.of(kind)
    }
    wanted = [name.rsplit(":", 1)[-1] for name in study.features.controls]
    wanted += [n for m in models.values() for kind in ("surprisal", "entropy") for n in m.of(kind)]
    audit = {label: dict(layers.audit) for label, layers in models.items()}
    layers = _Tables({}, list(models.values()))
    controls = make_controls(study, story.grouped(study.design.rows), corpus, layers)
    tables = _Tables(controls, list(models.values()))
    return _Spaces(tables, of_model, tuple(wanted), revisions, audit, kept)


def _write_audit(models: Mapping[str, Layers], folder: Path) -> None:
    """Keep what each tokenizer did to the words of each run, odd words by name."""
    rows: list[dict[str, Any]] = []
    for label, layers in models.items():
        for run, counts in layers.by_run.items():
            odd = "; ".join(counts["odd words"])
            rows.append({"model": label, "run": run, **counts, "odd words": odd})
    folder.mkdir(parents=True, exist_ok=True)
    with written_whole(folder / "tokens.tsv") as draft:
        pd.DataFrame(rows).to_csv(draft, sep="\t", index=False, na_rep="n/a")


def _extract(
    study: Study, story: Story, settings: ModelSettings, protocol: Protocol, tell: Progress
) -> tuple[Layers, str, np.ndarray]:
    import torch

    torch.set_num_threads(n_jobs(study))
    what = f"reading the story with {settings.label}"
    f = study.features
    replication = protocol.name == "replication-2025"
    tell(what, 0, len(story))
    model = load_model(
        settings.source,
        settings.label,
        revision=settings.revision,
        untrained_seed=settings.untrained_seed,
        dtype=settings.dtype,
        device=settings.device,
        quantization=settings.quantization,
        memory=settings.memory,
        head=not replication and bool({"surprisal", "entropy"} & set(f.take)),
        trust_remote_code=settings.trust_remote_code,
    )

    def pace(p: Pace) -> None:
        speed = f" · {p.tokens_per_second:,.0f} tokens/s" if p.tokens else ""
        tell(what + speed, p.words, p.total)

    layers = extract(
        story,
        model,
        layers=f.layers,
        take=("states",) if replication else f.take,
        context="sentence" if replication else f.context,
        pool="mean" if replication else f.pool,
        bos=f.bos,
        prefix=f.prefix,
        suffix=f.suffix,
        chat=f.chat,
        system=f.system,
        store=Store(cache_folder() / "features"),
        pace=pace,
    )
    units = np.ones(len(story.sentences), dtype=bool)
    if replication:
        texts = story.sentences.text.tolist()
        tokens = [
            model.tokenizer.convert_ids_to_tokens(model.tokenizer(t, add_special_tokens=False)["input_ids"])
            for t in texts
        ]
        units = units_kept(texts, tokens)
    return layers, model.revision, units


def _layer_number(name: str) -> int:
    """Read the number off a layer's name, such as "smollm2/layer-07"."""
    return int(name.rsplit("-", 1)[1])


class _Gather:
    """Collects what subjects give, and never more than one map a layer."""

    def __init__(self, spaces: _Spaces) -> None:
        self.rows: list[tuple[str, str, str, int | None, str, str, float]] = []
        self.sums: dict[str, np.ndarray] = {}
        self.counts: dict[str, np.ndarray] = {}
        self.chosen: dict[str, list[np.ndarray]] = {m: [] for m in spaces.of_model}
        self.null: dict[str, np.ndarray] = {}
        self.true: dict[str, np.ndarray] = {}
        self.tested: dict[str, np.ndarray] = {}
        self.delays: dict[str, list[float]] = {}
        self.layers: dict[str, dict[str, list[int]]] = {m: {} for m in spaces.of_model}
        self.spaces: dict[str, Space] = {}
        self.subjects: dict[str, Any] = {}
        self.warnings: list[str] = []

    def add(
        self, encoding: Encoding, model: str, layer: int | None, space: Space, metrics: tuple[str, str]
    ) -> np.ndarray:
        """Enter the scores of one encoding, per run and pooled, per region; give the pooled r."""
        s = score(encoding)
        for metric, pooled, by_run in zip(metrics, (s.r, s.r2), (s.r_by_run, s.r2_by_run), strict=True):
            for run, values in (("all", pooled), *zip(s.runs.tolist(), by_run, strict=True)):
                for region, value in region_means(values, space.regions).items():
                    self.rows.append((encoding.subject, run, model, layer, region, metric, value))
        return s.r

    def add_map(self, key: str, layer: int, n_layers: int, values: np.ndarray) -> None:
        """Add one subject's map of one layer to the mean over subjects."""
        if key not in self.sums:
            self.sums[key] = np.zeros((n_layers, len(values)))
            self.counts[key] = np.zeros((n_layers, len(values)))
        if self.sums[key].shape[1] != len(values):
            return
        known = np.isfinite(values)
        self.sums[key][layer, known] += values[known]
        self.counts[key][layer] += known

    def means(self, model: str) -> tuple[np.ndarray, np.ndarray]:
        """Give the mean over subjects of the chosen layer's r and of its nulls; NaN where none has a value."""
        count = np.where(self.tested[model] > 0, self.tested[model], np.nan)
        return self.true[model] / count, self.null[model] / count.astype(np.float32)

    def maps(self) -> dict[str, np.ndarray]:
        """Give the mean over subjects; NaN where none has a value."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return {k: np.where(self.counts[k] > 0, self.sums[k] / self.counts[k], np.nan) for k in self.sums}

    @property
    def space(self) -> Space | None:
        """The space all subjects share, if they do."""
        spaces = list(self.spaces.values())
        return spaces[0] if all(s.same_as(spaces[0]) for s in spaces) else None


def _encode(
    study: Study,
    corpus: Corpus,
    story: Story,
    subjects: Sequence[str],
    spaces: _Spaces,
    protocol: Protocol,
    tell: Progress,
) -> Results:
    kept, plans = Store(study.output_folder / "kept"), Plans()
    gather = _Gather(spaces)
    n_people = len(subjects) + (study.recording.average and len(subjects) > 1)
    n_fits = n_people * (len(spaces.controls) + sum(map(len, spaces.of_model.values())))
    done = 0
    for subject, recordings in everyone(study, corpus, subjects):
        pieces = own_story(study, corpus, story, subject)
        gather.warnings += _clock_of(study, pieces, recordings)
        tables = spaces.tables
        if hasattr(corpus, "story_of"):  # controls speak of times, and every reader has their own
            tables = _Tables(
                {**tables.controls, **make_controls(study, pieces, corpus, tables)}, tables.models
            )
        design = align_subject(study, pieces, tables, recordings)
        if study.compare.region not in {"brain", *design.space.regions}:
            raise SettingsError(
                f"compare.region is '{study.compare.region}', but the regions are: {', '.join(sorted({'brain', *design.space.regions}))}."
            )
        # responses are averaged over the sentences' times, which are not in the features
        heard = (pieces.sentences.onset, pieces.sentences.duration)
        when = [r.onset if isinstance(r, Recording) else r.ids for r in recordings]
        y_digest = digest(*(r.values for r in recordings), *when, *heard)
        gather.spaces[subject] = design.space
        gather.subjects[subject] = _counts(design, recordings)
        average_subject = subject == "average"
        with ThreadPoolExecutor(n_jobs(study)) as pool:
            delays = _delays(design, spaces, protocol, kept, y_digest, pool, plans)
            gather.delays[subject] = [float(np.median(row)) for row in delays]
            fits = functools.partial(
                _kept_fits, design, delays=delays, kept=kept, y_digest=y_digest, plans=plans
            )
            for name in spaces.controls:
                (encoding,) = fits([name], protocol=dataclasses.replace(protocol, confounds=()))
                r = gather.add(encoding, name, None, design.space, ("r", "r2"))
                if not average_subject:
                    gather.add_map(name, 0, 1, r)
                done += 1
                tell("fitting", done, n_fits)
            for model, layers in spaces.of_model.items():
                encodings: list[Encoding] = []
                batches = _batches(layers, design, protocol, n_jobs(study))
                for batch in pool.map(functools.partial(fits, protocol=protocol), batches):
                    encodings += batch
                    done += len(batch)
                    tell("fitting", done, n_fits)
                numbers = [_layer_number(name) for name in layers]
                for i, (number, encoding) in enumerate(zip(numbers, encodings, strict=True)):
                    r = gather.add(encoding, model, number, design.space, ("r", "r2"))
                    if not average_subject:
                        gather.add_map(model, i, len(layers), r)
                best = choose_layers(encodings)
                gather.layers[model][subject] = [numbers[int(k)] for k in best]
                whole = assemble_chosen(encodings, best, design, protocol, f"{model}/chosen")
                r = gather.add(whole, model, None, design.space, ("r_chosen", "r2_chosen"))
                gather.warnings += advice(design, protocol, whole, [layers[int(np.median(best))]])
                if not average_subject:
                    gather.chosen[model].append(r)
                    chosen = [layers[int(k)] for k in best]
                    _add_null(gather, design, whole, chosen, model, protocol, study.seed, pool, plans)
                    tell("fitting", done, n_fits)
    return _results(study, story, spaces, protocol, gather, study.compare.region)


def _clock_of(study: Study, story: Story, recordings: Runs) -> list[str]:
    """Hold one subject's clock against the words; one person's response may be a scan early or late."""
    timed = [(story, r) for r in recordings if isinstance(r, Recording)]
    lag = find_lag(timed) if study.recording.clock != "trust" else None
    if lag is None or not lag.off:
        return []
    if lag.far and study.recording.clock == "refuse":
        refuse(lag)
    return [lag.sentence]


def _delays(
    design: Design,
    spaces: _Spaces,
    protocol: Protocol,
    kept: Store,
    y_digest: str,
    pool: Executor,
    plans: Plans,
) -> np.ndarray:
    """Choose delays by probes from every model, spread over its depth, or by the controls where there is none."""
    probes = [name for layers in spaces.of_model.values() for name in _spread(layers)] or list(
        spaces.controls
    )
    if len(design.delays) == 1:
        return choose_delays(design, probes, protocol, plans=plans)
    parts = [_x_digest(design, name, protocol) for name in probes]
    key = "delays-" + digest(
        parts, y_digest, _value(protocol), list(design.delays), design.ids, design.run, FITTING
    )
    if key not in kept:
        kept.keep(key, {"delays": choose_delays(design, probes, protocol, pool, plans)})
    return np.asarray(kept.array(key, "delays"))


def _spread(layers: Sequence[str]) -> list[str]:
    """Take layers at even distances, none at the ends."""
    where = np.unique(np.round(np.linspace(0, len(layers) - 1, N_PROBES + 2)[1:-1]).astype(int))
    return [layers[i] for i in where]


def _batches(layers: Sequence[str], design: Design, protocol: Protocol, jobs: int) -> list[Sequence[str]]:
    """Cut layers into batches that are fitted together: enough for every thread, and not too large for memory."""
    n_rows, n_runs = len(design.run), len(set(design.run.tolist()))
    width = min(n_rows, protocol.pca or n_rows)
    plans = 16.0 * n_rows * width * (n_runs + 1)
    size = int(np.clip(BATCH_BYTES / plans, 1, max(1, -(-len(layers) // (2 * jobs)))))
    return [layers[i : i + size] for i in range(0, len(layers), size)]


def _kept_fits(
    design: Design,
    names: Sequence[str],
    *,
    protocol: Protocol,
    delays: np.ndarray,
    kept: Store,
    y_digest: str,
    plans: Plans,
) -> list[Encoding]:
    """Fit feature spaces, or find the same fits again."""
    decided = digest(y_digest, _value(protocol), delays, design.ids, design.run, design.scans, FITTING)
    keys = {name: "fit-" + digest(_x_digest(design, name, protocol), decided) for name in names}
    missing = [name for name in names if keys[name] not in kept]
    arrays = ("r", "sse", "sst", "penalty", "inner")
    for fresh in fit_layers(design, missing, protocol, delays, plans=plans) if missing else []:
        meta = {
            "pieces": fresh.pieces.tolist(),
            "piece_run": fresh.piece_run.tolist(),
            "rows": fresh.row_piece.tolist(),
        }
        kept.keep(keys[fresh.name], {name: getattr(fresh, name).astype(np.float32) for name in arrays}, meta)
    return [_read_fit(design, name, keys[name], delays, kept, arrays) for name in names]


def _read_fit(
    design: Design, name: str, key: str, delays: np.ndarray, kept: Store, arrays: Sequence[str]
) -> Encoding:
    meta = kept.meta(key)
    found = {array: np.asarray(kept.array(key, array), dtype=np.float64) for array in arrays}
    return Encoding(
        name=name,
        subject=design.subject,
        pieces=np.array(meta["pieces"]),
        piece_run=np.array(meta["piece_run"]),
        delay=np.broadcast_to(delays, found["penalty"].shape),
        row_piece=np.array(meta["rows"], dtype=object),
        **found,
    )


def _add_null(
    gather: _Gather,
    design: Design,
    whole: Encoding,
    spaces: Sequence[str],
    model: str,
    protocol: Protocol,
    seed: int,
    pool: Executor,
    plans: Plans,
) -> None:
    """Add one subject to the test of the chosen layer; the same runs shift alike in every subject and model."""
    if not protocol.n_nulls:
        return
    shares = {run: _shares(run, protocol.n_nulls, seed) for run in dict.fromkeys(design.run.tolist())}
    true = score(whole).r
    if model not in gather.null:
        gather.null[model] = _scratch((protocol.n_nulls, len(true)))
        gather.true[model], gather.tested[model] = np.zeros(len(true)), np.zeros(len(true))
    if gather.null[model].shape[1] != len(true):
        return
    for chunk, null in null_chunks(design, spaces, protocol, whole, shares, pool, plans):
        known = np.isfinite(true[chunk]) & np.isfinite(null).all(axis=0)
        gather.null[model][:, chunk] += np.where(known, null, 0.0)
        gather.true[model][chunk] += np.where(known, true[chunk], 0.0)
        gather.tested[model][chunk] += known


def _scratch(shape: tuple[int, int]) -> np.ndarray:
    """Make an array of zeros, float32, on disk where it would take much memory; it is gone when nothing holds it."""
    if 4 * shape[0] * shape[1] <= SCRATCH_BYTES:
        return np.zeros(shape, dtype=np.float32)
    with tempfile.TemporaryFile(prefix="langcortex-") as file:
        return np.memmap(file, dtype=np.float32, mode="w+", shape=shape)


def _shares(run: str, n_nulls: int, seed: int) -> np.ndarray:
    """Draw the shifts of one run, whatever other runs there are."""
    rng = np.random.default_rng([seed, int(digest(run)[:8], 16)])
    return draw_shifts([run], n_nulls, rng)[run]


def _x_digest(design: Design, space: str, protocol: Protocol) -> str:
    names = [space, *(name for name in protocol.confounds if name != space)]
    return digest(*(np.asarray(design.X[name]) for name in names))


def _value(protocol: Protocol) -> dict[str, Any]:
    """Give the choices that decide a fit, without those that come after it."""
    chosen = dataclasses.asdict(protocol)
    return {key: chosen[key] for key in chosen if key not in ("name", "n_nulls", "leaks")}


def _counts(design: Design, recordings: Runs) -> dict[str, Any]:
    undefined = np.isnan(np.asarray(design.Y[design.delays[0]])).any(axis=0)
    return {
        "runs": len(recordings),
        "scans": sum(len(r.onset) for r in recordings if isinstance(r, Recording)),
        "rows": len(design.ids),
        "targets": design.space.n_targets,
        "targets without data": int(undefined.sum()),
        "pieces left out": len(design.left_out),
    }


def _results(
    study: Study,
    story: Story,
    spaces: _Spaces,
    protocol: Protocol,
    gather: _Gather,
    region: str,
) -> Results:
    """Put everything together; compare models."""
    scores = pd.DataFrame(gather.rows, columns=COLUMNS)
    shared = gather.space
    layers = {m: np.array([_layer_number(n) for n in names]) for m, names in spaces.of_model.items()}
    results = Results(
        name=study.name,
        settings=study.model_dump(),
        protocol=protocol,
        counts={
            "words": len(story),
            study.design.rows.replace("scans", "sentences"): len(story.grouped(study.design.rows).sentences),
            "runs": len(story.runs),
            "labels left out (pauses)": int(sum(story.left_out.values())),
            "subjects": dict(gather.subjects),
        },
        models=tuple(spaces.of_model),
        controls=spaces.controls if protocol.name == "rigorous" else (),
        scores=scores,
        maps=gather.maps() if shared is not None else {},
        layers=layers,
        chosen={m: _mean(v) for m, v in gather.chosen.items() if v and shared is not None},
        p={m: p_values(*gather.means(m)) for m in gather.null} if shared is not None else {},
        p_corrected={m: p_corrected(*gather.means(m)) for m in gather.null} if shared is not None else {},
        delays=gather.delays,
        chosen_layers=gather.layers,
        comparisons=(),
        space=shared,
        versions=_versions(spaces),
        warnings=(),
        audit=spaces.audit,
        region=region,
    )
    comparisons, warnings = _comparisons(study, results)
    warnings = list(dict.fromkeys([*gather.warnings, *warnings]))
    if shared is None:
        warnings.append("Subjects have different targets, so there are no maps over subjects.")
    return dataclasses.replace(results, comparisons=comparisons, warnings=tuple(warnings))


def _mean(maps: Sequence[np.ndarray]) -> np.ndarray:
    stack = np.stack(maps)
    count = np.isfinite(stack).sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean: np.ndarray = np.where(count > 0, np.nansum(stack, axis=0) / count, np.nan)
    return mean


def _comparisons(study: Study, results: Results) -> tuple[tuple[Comparison, ...], list[str]]:
    models = results.models
    pairs = (
        study.compare.pairs
        if study.compare.pairs is not None
        else ([(models[0], models[1])] if len(models) > 1 else [])
    )
    out, warnings = [], []
    for a, b in pairs:
        left, right = results.curve(a), results.curve(b)
        common = [layer for layer in left.columns if layer in right.columns]
        if len(common) < max(left.shape[1], right.shape[1]):
            warnings.append(
                f"{a} and {b} have different layers; they are compared at the {len(common)} that both have."
            )
        units = [u for u in left.index if u in right.index]
        partial = [u for u in units if left.loc[u, common].isna().any() or right.loc[u, common].isna().any()]
        if partial:
            warnings.append(
                f"{a} against {b}: {len(partial)} of {len(units)} {results.unit} have a layer without a score and are left out, first '{partial[0]}'."
            )
            units = [u for u in units if u not in partial]
        if len(units) < 2 or not common:
            warnings.append(
                f"{a} and {b} cannot be compared: there are {len(units)} {results.unit} and {len(common)} common layers."
            )
            continue
        out.append(
            compare(
                left.loc[units, common].to_numpy(),
                right.loc[units, common].to_numpy(),
                np.array(common, dtype=int),
                (a, b),
                results.unit,
                np.random.default_rng([study.seed, 1]),
                study.compare.margin,
            )
        )
    if out and results.unit == "runs":
        warnings.append(
            "There is one subject: the spread is over runs, which says nothing about other people."
        )
    return tuple(out), warnings


def _versions(spaces: _Spaces) -> dict[str, str]:
    found = {"langcortex": langcortex.__version__, "python": platform.python_version()}
    for package in ("numpy", "scipy", "nilearn", "nibabel", "scikit-learn", "torch", "transformers"):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found | {f"model {name}": revision for name, revision in spaces.revisions.items()}


def _replicate(
    study: Study,
    corpus: Corpus,
    story: Story,
    subjects: Sequence[str],
    spaces: _Spaces,
    protocol: Protocol,
    tell: Progress,
) -> Results:
    """Apply the published recipe to every subject, run and model, each by itself."""
    region = f"top {N_VOXELS} voxels"
    kept = Store(study.output_folder / "kept")
    gather = _Gather(spaces)
    sentences = story.sentences
    total, done = len(subjects) * len(spaces.of_model) * len(story.runs), 0
    for subject in subjects:
        recordings = [
            r for r in read_subject(corpus, subject) if r.run in story.runs and isinstance(r, Recording)
        ]
        if not recordings:
            raise SettingsError(
                f"The preset 'replication-2025' works on scans; subject '{subject}' has none for the story's runs."
            )
        gather.spaces[subject] = recordings[0].space
        gather.subjects[subject] = {
            "runs": len(recordings),
            "scans": int(sum(len(r.onset) for r in recordings)),
        }
        for model, names in spaces.of_model.items():
            tables = [spaces.tables[name].over_sentences(story).values for name in names]
            by_run = []
            for recording in recordings:
                rows = sentences.run == recording.run
                r, delay = _kept_replication(
                    kept,
                    np.stack([table[rows] for table in tables], axis=1),
                    recording.values,
                    sentences.onset[rows] - recording.onset[0],
                    sentences.duration[rows],
                    recording.tr,
                    spaces.kept_units[model][rows],
                    study.protocol.row_shift,
                    study.seed,
                )
                by_run.append(r)
                gather.delays.setdefault(f"{subject}, {model}", []).append(delay)
                for name, value in zip(names, r, strict=True):
                    gather.rows.append(
                        (
                            subject,
                            recording.run,
                            model,
                            _layer_number(name),
                            region,
                            "r",
                            float(value),
                        )
                    )
                done += 1
                tell("replicating", done, total)
            for name, value in zip(names, np.mean(by_run, axis=0), strict=True):
                gather.rows.append((subject, "all", model, _layer_number(name), region, "r", float(value)))
    return _results(study, story, spaces, protocol, gather, region)


def _kept_replication(kept: Store, *recipe: Any) -> tuple[np.ndarray, float]:
    """Replicate one run, or find the same result again."""
    key = "replication-" + digest(*recipe, FITTING)
    if key not in kept:
        one = replicate_run(*recipe)
        kept.keep(key, {"r": one.r, "voxels": one.voxels}, {"delay": one.delay, "rows": one.n_rows})
    return np.asarray(kept.array(key, "r")), float(kept.meta(key)["delay"])
