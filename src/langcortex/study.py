"""The whole job: from settings to results. The only place that decides what is kept and found again."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from langcortex.advice import advice
from langcortex.clock import find_lag
from langcortex.datasets import Corpus
from langcortex.design import Design
from langcortex.encoding import Encoding, assemble_chosen, choose_delays, choose_layers, fit_layers, score
from langcortex.errors import SettingsError
from langcortex.gathering import Gather, add_null
from langcortex.how import How
from langcortex.inference import gathered_results
from langcortex.plans import Plans
from langcortex.predictions import write_predictions, write_weights
from langcortex.protocol import Protocol
from langcortex.reading import Progress as Progress
from langcortex.reading import Spaces, Tables, layer_number, make_spaces
from langcortex.reading import n_jobs as n_jobs
from langcortex.recording import Recording
from langcortex.reliability import FEWEST, Held, held_out, of_repeats
from langcortex.replicating import replicate
from langcortex.report import write_report
from langcortex.results import Results
from langcortex.saved import write_tables
from langcortex.settings import Study
from langcortex.sharing import Sharing
from langcortex.sources import (
    Runs,
    align_subject,
    check_names,
    everyone,
    make_controls,
    open_corpus,
    own_story,
    protocol_of,
    read_words,
    refuse,
    remarks,
    sampled_lag,
    source_of,
)
from langcortex.store import Store, digest, written_whole
from langcortex.story import Story

FITTING = 1  # raised whenever the same design and protocol would give other numbers
BATCH_BYTES = 5e8  # memory for the prepared features of the layers that one thread fits together
N_PROBES = 3  # layers a model that speak for it when delays are chosen


def run_study(
    study: Study,
    progress: Progress | None = None,
    corpus: Corpus | None = None,
    spaces: Spaces | None = None,
) -> Results:
    """Run a study: read, extract, align, fit, score, compare.

    Finished features go to the user's cache and finished fits to ``kept/`` in the output folder, each under a
    name made of everything that decides it: a study that was interrupted goes on where it stopped, and a
    study that was changed computes what the change touches.

    Parameters
    ----------
    study : from `langcortex.settings.read_study`
    progress : called as work is done
    corpus : in the place of the one that the study names
    spaces : features that were made already, by `langcortex.reading.make_spaces` for the same study; no model is loaded

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
    How(study.fit.on, study.fit.regime).check()
    subjects = list(corpus.subjects())
    if not subjects:
        raise SettingsError("The study has no subjects.")
    with threadpool_limits(limits=1):
        if study.recording.clock == "refuse":  # before a model reads for hours
            lag = sampled_lag(study, corpus, story, subjects)
            if lag is not None and lag.off:
                refuse(lag)
        if spaces is None:
            spaces = make_spaces(study, corpus, story, protocol, tell)
        do = replicate if protocol.name == "replication-2025" else _encode
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


def _encode(
    study: Study,
    corpus: Corpus,
    story: Story,
    subjects: Sequence[str],
    spaces: Spaces,
    protocol: Protocol,
    tell: Progress,
) -> Results:
    kept, plans, how = Store(study.output_folder / "kept"), Plans(), How(study.fit.on, study.fit.regime)
    gather = Gather(spaces, len(subjects), study.compare.region)
    sharing = Sharing(study, spaces, len(subjects))
    n_people = len(subjects) + (study.recording.average and len(subjects) > 1)
    n_fits = n_people * (len(spaces.controls) + sum(map(len, spaces.of_model.values())))
    done = 0
    for subject, recordings in everyone(study, corpus, subjects):
        pieces = own_story(study, corpus, story, subject)
        gather.warnings += _clock_of(study, pieces, recordings)
        tables = spaces.tables
        if hasattr(corpus, "story_of"):  # controls speak of times, and every reader has their own
            tables = Tables(
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
        gather.warnings += design.space.remarks
        gather.subjects[subject] = _counts(design, recordings)
        average_subject = subject == "average"
        with ThreadPoolExecutor(n_jobs(study)) as pool:
            delays = _delays(design, spaces, protocol, kept, y_digest, pool, plans, how)
            gather.delays[subject] = [float(np.median(row)) for row in delays]
            held = _listen(study, corpus, design, protocol, delays, gather) if not average_subject else None
            fits = functools.partial(
                _kept_fits, design, delays=delays, kept=kept, y_digest=y_digest, plans=plans, how=how
            )
            for name in spaces.controls:
                (encoding,) = fits([name], protocol=dataclasses.replace(protocol, confounds=()))
                r = gather.add(encoding, name, None, design.space, ("r", "r2"))
                if not average_subject:
                    gather.add_map(name, 0, 1, r)
                done += 1
                tell("fitting", done, n_fits)
            encoded: dict[str, Encoding] = {}
            for model, layers in spaces.of_model.items():
                encodings: list[Encoding] = []
                batches = _batches(layers, design, protocol, n_jobs(study))
                for batch in pool.map(functools.partial(fits, protocol=protocol), batches):
                    encodings += batch
                    gather.regimes[model] |= {e.regime for e in batch}
                    done += len(batch)
                    tell("fitting", done, n_fits)
                numbers = [layer_number(name) for name in layers]
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
                    gather.add_edges(model, whole.penalty, protocol.penalties)
                    encoded[model] = whole
                    if sharing.wants(model):
                        sharing.add(model, design, best, protocol, delays, kept, y_digest, tell, pool)
                    chosen = [layers[int(k)] for k in best]
                    each = list(zip(layers, encodings, strict=True))
                    add_null(
                        gather, design, whole, chosen, each, model, protocol, study.seed, len(subjects), pool, plans, how
                    )  # fmt: skip
                    _write_fit(study, design, chosen, protocol, whole, model, plans, how)
                    tell("fitting", done, n_fits)
            if held is not None and encoded:
                _hear_repeats(study, corpus, design, held, encoded, gather)
    results = gathered_results(study, story, spaces, protocol, gather, study.compare.region)
    partitions = sharing.results(results.space is not None, study.inference.n_resamples)
    return dataclasses.replace(results, partitions=partitions)


def _listen(
    study: Study, corpus: Corpus, design: Design, protocol: Protocol, delays: np.ndarray, gather: Gather
) -> Held | None:
    """Gather what the scores of one subject are of, for noise ceilings; None where nobody asks or could."""
    own_clocks = hasattr(corpus, "story_of") and study.design.rows == "scans"
    people, repeated = len(list(corpus.subjects())), hasattr(corpus, "repeats")
    if not study.inference.ceilings or not study.models:
        return None
    if own_clocks:
        gather.no_ceiling = "There is no noise ceiling between subjects: everyone read at a pace of their own, so scans do not correspond."
    elif people < FEWEST:
        gather.no_ceiling = f"There is no noise ceiling between subjects: it needs at least {FEWEST}, and there {'is' if people == 1 else 'are'} {people}."
    if not repeated and (own_clocks or people < FEWEST):
        return None
    held = held_out(design, protocol, delays)
    if not own_clocks and people >= FEWEST:
        gather.listeners.add(design.subject, held, design.space)
    return held


def _hear_repeats(
    study: Study,
    corpus: Corpus,
    design: Design,
    held: Held,
    encoded: Mapping[str, Encoding],
    gather: Gather,
) -> None:
    """Compute the ceiling of a repeated run, where the corpus has one and rows are its scans."""
    run = str(getattr(corpus, "test_story", ""))
    if not hasattr(corpus, "repeats") or run not in set(held.piece.tolist()):
        return
    if study.design.rows != "scans":
        gather.no_repeats = f"The repeats of '{run}' give no ceiling: they are repeats of scans, and the rows are {study.design.rows}."
        return
    scored = {m: score(e) for m, e in encoded.items()}
    scores = {m: s.r_by_run[s.runs.tolist().index(run)] for m, s in scored.items()}
    rng = np.random.default_rng([study.seed, 8])
    n = max(100, study.inference.n_resamples // 10)
    found, why = of_repeats(design, held, run, corpus.repeats(design.subject), scores, rng, n)
    gather.repeats += [found] if found is not None else []
    gather.no_repeats = why or gather.no_repeats


def _write_fit(
    study: Study,
    design: Design,
    spaces: Sequence[str],
    protocol: Protocol,
    encoding: Encoding,
    model: str,
    plans: Plans,
    how: How,
) -> None:
    """Write predictions and weights of one subject and model, where they are asked for and not there yet."""
    folder = study.output_folder / "fits" / f"{design.subject}_{model}"
    if study.fit.predictions:
        write_predictions(design, spaces, protocol, encoding, folder, plans, how)
    if study.fit.weights:
        write_weights(design, spaces, protocol, encoding, folder / "weights.npy", plans, how)


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
    spaces: Spaces,
    protocol: Protocol,
    kept: Store,
    y_digest: str,
    pool: Executor,
    plans: Plans,
    how: How,
) -> np.ndarray:
    """Choose delays by probes from every model, spread over its depth, or by the controls where there is none."""
    probes = [name for layers in spaces.of_model.values() for name in _spread(layers)] or list(
        spaces.controls
    )
    if len(design.delays) == 1:
        return choose_delays(design, probes, protocol, plans=plans, how=how)
    parts = [_x_digest(design, name, protocol) for name in probes]
    key = "delays-" + digest(
        parts, y_digest, _value(protocol), list(design.delays), design.ids, design.run, FITTING
    )
    if key not in kept:
        kept.keep(key, {"delays": choose_delays(design, probes, protocol, pool, plans, how)})
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
    how: How,
) -> list[Encoding]:
    """Fit feature spaces, or find the same fits again."""
    decided = digest(y_digest, _value(protocol), delays, design.ids, design.run, design.scans, FITTING)
    keys = {name: "fit-" + digest(_x_digest(design, name, protocol), decided) for name in names}
    missing = [name for name in names if keys[name] not in kept]
    arrays = ("r", "sse", "sst", "penalty", "inner")
    for fresh in fit_layers(design, missing, protocol, delays, False, plans, how) if missing else []:
        meta = {
            "pieces": fresh.pieces.tolist(),
            "piece_run": fresh.piece_run.tolist(),
            "rows": fresh.row_piece.tolist(),
            "regime": fresh.regime,
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
        regime=meta.get("regime", ""),
        **found,
    )


def _x_digest(design: Design, space: str, protocol: Protocol) -> str:
    names = [space, *(name for name in protocol.confounds if name != space)]
    return digest(*(np.asarray(design.X[name]) for name in names))


def _value(protocol: Protocol) -> dict[str, Any]:
    """Give the choices that decide a fit, without those that come after it."""
    chosen = dataclasses.asdict(protocol)
    return {
        key: chosen[key]
        for key in chosen
        if key not in ("name", "n_nulls", "leaks") and not key.startswith("null")
    }


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
