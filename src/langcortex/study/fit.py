"""One subject of a study after another: delays, fits, layers chosen in training, nulls. Fits are kept and found again."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from langcortex.brain.recording import Recording
from langcortex.cache import Store, digest
from langcortex.datasets import Corpus
from langcortex.design.design import Design
from langcortex.design.lag import find_lag
from langcortex.encoding.diagnostics import diagnose
from langcortex.encoding.export import write_predictions, write_weights
from langcortex.encoding.folded_design import ScoredResponses, scored_responses
from langcortex.encoding.nested_cv import fit_layers
from langcortex.encoding.prepare import Engine, PreparedCache
from langcortex.encoding.protocol import Protocol, check_folds, describe_components
from langcortex.encoding.scores import Encoding, score
from langcortex.encoding.selection import assemble_chosen, choose_delays, choose_layers
from langcortex.errors import SettingsError
from langcortex.paths import safe_name
from langcortex.progress import Progress
from langcortex.results.results import Results
from langcortex.ridge.backend import Backend
from langcortex.stimulus.story import Story
from langcortex.study.accumulate import StudyScores
from langcortex.study.clock import raise_clock_error
from langcortex.study.controls import make_controls
from langcortex.study.feature_spaces import Spaces, Tables, layer_number
from langcortex.study.inference import infer_results
from langcortex.study.noise_ceiling import FEWEST, repeat_ceiling
from langcortex.study.settings import Study, n_jobs
from langcortex.study.subject import Runs, absent_runs, align_subject, iterate_subjects, subject_story
from langcortex.study.variance_partition import StudyPartition

FITTING = 2  # raised whenever the same design and protocol would give other numbers
BATCH_BYTES = 5e8  # memory for the prepared features of the layers that one thread fits together
N_BATCHES = 16  # of a model's layers, at least, where there are so many; the same for any number of threads
N_PROBES = 3  # layers of each model on which delays are chosen


def fit_study(
    study: Study,
    corpus: Corpus,
    story: Story,
    subjects: Sequence[str],
    spaces: Spaces,
    protocol: Protocol,
    progress: Progress,
) -> Results:
    """Fit every control and layer to every subject, under the rigorous protocol."""
    study_fit = _StudyFit(study, corpus, story, subjects, spaces, protocol, progress)
    for subject, recordings in iterate_subjects(study, corpus, subjects):
        study_fit.fit_subject(subject, recordings)
    results = infer_results(study, story, spaces, protocol, study_fit.scores, study.compare.region)
    partitions = study_fit.partition.results(results.space is not None, study.inference.n_resamples)
    return dataclasses.replace(
        results,
        partitions=partitions,
        kept_results=tuple(sorted(study_fit.store.used)),
        inputs=study_fit.inputs,
        files=tuple(study_fit.files),
    )


@dataclass(frozen=True, eq=False)
class _SubjectFit:
    """One subject's rows, and what all fits of them share.

    Attributes
    ----------
    is_average : whether this is the mean over subjects, which counts as no further subject
    delays : (n_folds, n_targets) or (n_folds, 1), chosen in training
    y_digest : names the responses by their bytes
    """

    design: Design
    is_average: bool
    delays: np.ndarray
    y_digest: str
    engine: Engine


class _StudyFit:
    """What the subjects of a study share, and the scores of those that were fitted."""

    def __init__(
        self,
        study: Study,
        corpus: Corpus,
        story: Story,
        subjects: Sequence[str],
        spaces: Spaces,
        protocol: Protocol,
        progress: Progress,
    ) -> None:
        self.study, self.corpus, self.story = study, corpus, story
        self.spaces, self.protocol, self.progress = spaces, protocol, progress
        self.store = Store(study.output_folder / "kept")
        self.engine = Engine(Backend(study.fit.on, study.fit.regime), PreparedCache())
        self.scores = StudyScores(spaces, len(subjects), study.compare.region)
        self.partition = StudyPartition(study, spaces, len(subjects))
        n_subjects = len(subjects) + (study.recording.average and len(subjects) > 1)
        self.n_fits = n_subjects * (len(spaces.controls) + sum(map(len, spaces.of_model.values())))
        self.n_done = 0
        self.inputs: dict[str, str] = {}
        self.files: list[str] = []

    def fit_subject(self, subject: str, recordings: Runs) -> None:
        """Fit one subject."""
        design, y_digest = self._make_design(subject, recordings)
        self.inputs[f"responses of {subject}"] = y_digest
        with ThreadPoolExecutor(n_jobs(self.study)) as executor:
            engine = dataclasses.replace(self.engine, executor=executor)
            delays = self._choose_delays(design, y_digest, engine)
            self.scores.delays[subject] = [float(np.median(row)) for row in delays]
            fit = _SubjectFit(design, subject == "average", delays, y_digest, engine)
            responses = None if fit.is_average else self._collect_for_ceiling(design, delays)
            for control in self.spaces.controls:
                self._fit_control(fit, control)
            encodings = {
                model: self._fit_model(fit, model, layers) for model, layers in self.spaces.of_model.items()
            }
            if responses is not None and encodings:
                self._add_repeat_ceiling(design, responses, encodings)

    def _make_design(self, subject: str, recordings: Runs) -> tuple[Design, str]:
        """Align one subject's recordings with the story, and name the responses by their bytes."""
        study, scores, tables = self.study, self.scores, self.spaces.tables
        story = subject_story(study, self.corpus, self.story, subject)
        scores.warnings += _check_clock(study, story, recordings)
        if hasattr(self.corpus, "story_of"):  # controls speak of times, and every reader has their own
            controls = make_controls(study, story, self.corpus, tables)
            tables = Tables({**tables.controls, **controls}, tables.models)
        design = align_subject(study, story, tables, recordings)
        n_rows = check_folds(design.run, design.scans, self.protocol)
        if few := describe_components(self.protocol, n_rows):
            scores.warnings += [f"Subject {subject}: {few}"]
        scores.warnings += absent_runs(story, subject, design.run.tolist())
        regions = {"brain", *design.space.regions}
        if study.compare.region not in regions:
            raise SettingsError(
                f"compare.region is '{study.compare.region}', but the regions are: {', '.join(sorted(regions))}."
            )
        scores.spaces[subject] = design.space
        scores.warnings += design.space.remarks
        scores.add_recordings(subject, recordings)
        scores.subjects[subject] = _counts(design, recordings)
        # responses are averaged over the sentences' times, which are not in the features
        times = (story.sentences.onset, story.sentences.duration)
        rows = [r.onset if isinstance(r, Recording) else r.ids for r in recordings]
        return design, digest(*(r.values for r in recordings), *rows, *times)

    def _step(self, n: int = 1) -> None:
        self.n_done += n
        self.progress("fitting", self.n_done, self.n_fits)

    def _fit_control(self, fit: _SubjectFit, name: str) -> None:
        """Fit one control, from which no confound is regressed out, and which keeps its own columns."""
        protocol = dataclasses.replace(self.protocol, confounds=(), pca=None)
        (encoding,) = self._fit_spaces(fit, protocol, [name])
        if np.isfinite(encoding.sst).any() and not np.isfinite(encoding.r).any():
            remark = f"'{name}' is constant over the rows of every held-out segment, so it predicts nothing there and has no r."
            self.scores.warnings += [remark] if remark not in self.scores.warnings else []
        self._add_encoding(fit, encoding, name, None, 0, 1)
        self._step()

    def _add_encoding(
        self, fit: _SubjectFit, encoding: Encoding, key: str, number: int | None, row: int, n_rows: int
    ) -> None:
        r = self.scores.add_encoding(encoding, key, number, fit.design.space, ("r", "r2"))
        if not fit.is_average:
            self.scores.add_map(key, row, n_rows, r)

    def _fit_model(self, fit: _SubjectFit, model: str, layers: Sequence[str]) -> Encoding:
        """Fit every layer of a model, choose one layer in each outer fold, and return the encoding of the chosen layers."""
        scores, design = self.scores, fit.design
        encodings: list[Encoding] = []
        fit_batch = functools.partial(self._fit_spaces, fit, self.protocol)
        for batch in fit.engine.map(fit_batch, _batches(layers, design, self.protocol)):
            encodings += batch
            scores.solvers[model] |= {e.regime for e in batch}
            self._step(len(batch))
        numbers = [layer_number(name) for name in layers]
        for i, (number, encoding) in enumerate(zip(numbers, encodings, strict=True)):
            self._add_encoding(fit, encoding, model, number, i, len(layers))
        best = choose_layers(encodings)
        scores.chosen_layers[model][design.subject] = [numbers[int(k)] for k in best]
        chosen = assemble_chosen(encodings, best, design, self.protocol, f"{model}/chosen")
        r = scores.add_encoding(chosen, model, None, design.space, ("r_chosen", "r2_chosen"))
        scores.warnings += diagnose(design, self.protocol, chosen, [layers[int(np.median(best))]])
        if not fit.is_average:
            scores.chosen_maps[model].append(r)
            scores.add_penalties(model, chosen.penalty, self.protocol.penalties)
            self._test_chosen(fit, model, layers, encodings, best, chosen)
        return chosen

    def _test_chosen(
        self,
        fit: _SubjectFit,
        model: str,
        layers: Sequence[str],
        encodings: Sequence[Encoding],
        best: np.ndarray,
        encoding: Encoding,
    ) -> None:
        """Partition the variance of the layer chosen in training, test it against nulls, and export it, as the study says."""
        design, protocol, study = fit.design, self.protocol, self.study
        if self.partition.includes(model):
            self.partition.add_subject(
                model,
                design,
                best,
                protocol,
                fit.delays,
                self.store,
                fit.y_digest,
                self.progress,
                fit.engine,
            )
        chosen = [layers[int(k)] for k in best]
        all_layers = [([name] * len(chosen), e) for name, e in zip(layers, encodings, strict=True)]
        tested = [(chosen, encoding), *all_layers]
        self.scores.add_nulls(model, design, protocol, tested, study.seed, fit.engine)
        folder = study.output_folder / "fits" / f"{safe_name(design.subject, avoid='_')}_{safe_name(model)}"
        if study.fit.predictions:
            paths = write_predictions(design, chosen, protocol, encoding, folder, self.engine)
            self.files += [path.relative_to(study.output_folder).as_posix() for path in paths]
        if study.fit.weights:
            path = write_weights(design, chosen, protocol, encoding, folder / "weights.npy", self.engine)
            self.files.append(path.relative_to(study.output_folder).as_posix())
        self._step(0)

    def _collect_for_ceiling(self, design: Design, delays: np.ndarray) -> ScoredResponses | None:
        """Collect the responses that are scored, for noise ceilings; None where none is wanted or possible."""
        study, corpus, scores = self.study, self.corpus, self.scores
        self_paced = hasattr(corpus, "story_of") and study.design.rows == "scans"
        n_subjects, has_repeats = len(list(corpus.subjects())), hasattr(corpus, "repeats")
        if not study.inference.ceilings or not study.models:
            return None
        if self_paced:
            scores.no_ceiling = "There is no noise ceiling between subjects: everyone read at their own pace, so scans do not correspond."
        elif n_subjects < FEWEST:
            scores.no_ceiling = f"There is no noise ceiling between subjects: it needs at least {FEWEST}, and there {'is' if n_subjects == 1 else 'are'} {n_subjects}."
        if not has_repeats and (self_paced or n_subjects < FEWEST):
            return None
        responses = scored_responses(design, self.protocol, delays)
        if not self_paced and n_subjects >= FEWEST:
            scores.shared_responses.add(design.subject, responses, design.space)
        return responses

    def _add_repeat_ceiling(
        self, design: Design, responses: ScoredResponses, encodings: Mapping[str, Encoding]
    ) -> None:
        """Compute the ceiling of a repeated run, where the corpus has one and rows are its scans."""
        study, corpus, scores = self.study, self.corpus, self.scores
        run = str(getattr(corpus, "test_story", ""))
        if not hasattr(corpus, "repeats") or run not in set(responses.segment.tolist()):
            return
        if study.design.rows != "scans":
            scores.no_repeats = f"The repeats of '{run}' give no ceiling: they are repeats of scans, and the rows are {study.design.rows}."
            return
        by_model = {model: score(encoding) for model, encoding in encodings.items()}
        r = {model: s.r_by_run[s.runs.tolist().index(run)] for model, s in by_model.items()}
        rng = np.random.default_rng([study.seed, 8])
        n = max(100, study.inference.n_resamples // 10)
        ceiling, reason = repeat_ceiling(design, responses, run, corpus.repeats(design.subject), r, rng, n)
        scores.repeat_ceilings += [ceiling] if ceiling is not None else []
        scores.no_repeats = reason or scores.no_repeats

    def _choose_delays(self, design: Design, y_digest: str, engine: Engine) -> np.ndarray:
        """Choose delays by layers of every model, spread over its depth, or by the controls where there is no model."""
        spaces, protocol, store = self.spaces, self.protocol, self.store
        probes = [layer for layers in spaces.of_model.values() for layer in _probe_layers(layers)]
        if not probes:
            probes, protocol = list(spaces.controls), dataclasses.replace(protocol, pca=None)
        if len(design.delays) == 1:
            return choose_delays(design, probes, protocol, engine)
        parts = [_x_digest(design, probe, protocol) for probe in probes]
        key = "delays-" + digest(
            parts, y_digest, protocol.deciding(), list(design.delays), design.ids, design.run, FITTING
        )
        if not store.check(key):
            delays = choose_delays(design, probes, protocol, engine)
            store.save(key, {"delays": delays})
        return np.asarray(store.array(key, "delays"))

    def _fit_spaces(self, fit: _SubjectFit, protocol: Protocol, names: Sequence[str]) -> list[Encoding]:
        """Fit feature spaces, or read the same fits from the store."""
        design, delays, store = fit.design, fit.delays, self.store
        decided = digest(
            fit.y_digest, protocol.deciding(), delays, design.ids, design.run, design.scans, FITTING
        )
        keys = {name: "fit-" + digest(_x_digest(design, name, protocol), decided) for name in names}
        missing = [name for name in names if not store.check(keys[name], ARRAYS, FACTS)]
        if missing:
            for encoding in fit_layers(design, missing, protocol, delays, False, self.engine):
                _save_fit(store, keys[encoding.name], encoding)
        return [_read_fit(store, keys[name], design, name, delays) for name in names]


def _check_clock(study: Study, story: Story, recordings: Runs) -> list[str]:
    """Compare one subject's clock with the words; one person's response may be a scan early or late."""
    timed = [(story, r) for r in recordings if isinstance(r, Recording)]
    lag = find_lag(timed) if study.recording.clock != "trust" else None
    if lag is None or not lag.is_off:
        return []
    if lag.is_far_off and study.recording.clock == "refuse":
        raise_clock_error(lag)
    return [lag.summary]


def _probe_layers(layers: Sequence[str]) -> list[str]:
    """Choose evenly spaced layers, none at the ends."""
    numbers = np.unique(np.round(np.linspace(0, len(layers) - 1, N_PROBES + 2)[1:-1]).astype(int))
    return [layers[i] for i in numbers]


def _batches(layers: Sequence[str], design: Design, protocol: Protocol) -> list[Sequence[str]]:
    """Cut layers into batches that are fitted together: enough for several threads, and not too large for memory."""
    n_rows, n_runs = len(design.run), len(set(design.run.tolist()))
    width = min(n_rows, protocol.pca or n_rows)
    plan_bytes = 16.0 * n_rows * width * (n_runs + 1)
    size = int(np.clip(BATCH_BYTES / plan_bytes, 1, max(1, -(-len(layers) // N_BATCHES))))
    return [layers[i : i + size] for i in range(0, len(layers), size)]


ARRAYS = ("r", "sse", "sst", "penalty", "inner")  # of an encoding, in the store
FACTS = ("pieces", "piece_run", "rows")


def _save_fit(store: Store, key: str, encoding: Encoding) -> None:
    meta = {
        "pieces": encoding.segments.tolist(),
        "piece_run": encoding.segment_run.tolist(),
        "rows": encoding.row_segment.tolist(),
        "regime": encoding.regime,
    }
    store.save(key, {name: getattr(encoding, name).astype(np.float32) for name in ARRAYS}, meta)


def _read_fit(store: Store, key: str, design: Design, name: str, delays: np.ndarray) -> Encoding:
    meta = store.meta(key)
    arrays = {array: np.asarray(store.array(key, array), dtype=np.float64) for array in ARRAYS}
    return Encoding(
        name=name,
        subject=design.subject,
        segments=np.array(meta["pieces"]),
        segment_run=np.array(meta["piece_run"]),
        delay=np.broadcast_to(delays, arrays["penalty"].shape),
        row_segment=np.array(meta["rows"], dtype=object),
        regime=meta.get("regime", ""),
        **arrays,
    )


def _x_digest(design: Design, space: str, protocol: Protocol) -> str:
    names = [space, *(name for name in protocol.confounds if name != space)]
    return digest(*(np.asarray(design.X[name]) for name in names))


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
