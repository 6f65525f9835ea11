"""One subject of a study after another: delays, fits, the layers chosen in training, nulls. Finished fits are kept."""

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
from langcortex.encoding.protocol import Protocol
from langcortex.encoding.scores import Encoding, score
from langcortex.encoding.selection import assemble_chosen, choose_delays, choose_layers
from langcortex.errors import SettingsError
from langcortex.progress import Progress
from langcortex.results.results import Results
from langcortex.ridge.backend import Backend
from langcortex.stimulus.story import Story
from langcortex.study.accumulate import StudyScores, add_nulls
from langcortex.study.clock import raise_clock_error
from langcortex.study.controls import make_controls
from langcortex.study.feature_spaces import Spaces, Tables, layer_number
from langcortex.study.inference import infer_results
from langcortex.study.noise_ceiling import FEWEST, repeat_ceiling
from langcortex.study.settings import Study, n_jobs
from langcortex.study.subject import Runs, align_subject, iterate_subjects, subject_story
from langcortex.study.variance_partition import StudyPartition

FITTING = 1  # raised whenever the same design and protocol would give other numbers
BATCH_BYTES = 5e8  # memory for the prepared features of the layers that one thread fits together
N_PROBES = 3  # layers a model that speak for it when delays are chosen


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
    work = _StudyFit(study, corpus, story, subjects, spaces, protocol, progress)
    for subject, recordings in iterate_subjects(study, corpus, subjects):
        work.subject(subject, recordings)
    results = infer_results(study, story, spaces, protocol, work.gather, study.compare.region)
    partitions = work.sharing.results(results.space is not None, study.inference.n_resamples)
    return dataclasses.replace(results, partitions=partitions)


@dataclass(frozen=True, eq=False)
class _SubjectFit:
    """One subject's rows, and what fits of them share.

    Attributes
    ----------
    average : whether this is the mean over subjects, which is no further person
    delays : (n_folds, n_targets) or (n_folds, 1), chosen in training
    name : of the responses, by their bytes
    """

    design: Design
    average: bool
    delays: np.ndarray
    name: str
    engine: Engine


class _StudyFit:
    """Everything that the subjects of one study share, and what they gave so far."""

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
        self.study, self.corpus, self.story, self.spaces, self.protocol = (
            study,
            corpus,
            story,
            spaces,
            protocol,
        )
        self.kept = Store(study.output_folder / "kept")
        self.engine = Engine(Backend(study.fit.on, study.fit.regime), PreparedCache())
        self.gather = StudyScores(spaces, len(subjects), study.compare.region)
        self.sharing = StudyPartition(study, spaces, len(subjects))
        self.n_subjects, self.progress, self.done = len(subjects), progress, 0
        n_people = len(subjects) + (study.recording.average and len(subjects) > 1)
        self.n_fits = n_people * (len(spaces.controls) + sum(map(len, spaces.of_model.values())))

    def subject(self, subject: str, recordings: Runs) -> None:
        """Fit one subject."""
        design, name = self._design(subject, recordings)
        with ThreadPoolExecutor(n_jobs(self.study)) as executor:
            engine = dataclasses.replace(self.engine, executor=executor)
            delays = self._delays(design, name, engine)
            self.gather.delays[subject] = [float(np.median(row)) for row in delays]
            person = _SubjectFit(design, subject == "average", delays, name, engine)
            held = None if person.average else self._listen(design, delays)
            for control in self.spaces.controls:
                self._control(person, control)
            whole = {
                model: self._model(person, model, layers) for model, layers in self.spaces.of_model.items()
            }
            if held is not None and whole:
                self._hear_repeats(design, held, whole)

    def _design(self, subject: str, recordings: Runs) -> tuple[Design, str]:
        """Let story and recordings meet, and name the responses."""
        study, gather, tables = self.study, self.gather, self.spaces.tables
        pieces = subject_story(study, self.corpus, self.story, subject)
        gather.warnings += _clock_of(study, pieces, recordings)
        if hasattr(self.corpus, "story_of"):  # controls speak of times, and every reader has their own
            own = make_controls(study, pieces, self.corpus, tables)
            tables = Tables({**tables.controls, **own}, tables.models)
        design = align_subject(study, pieces, tables, recordings)
        regions = {"brain", *design.space.regions}
        if study.compare.region not in regions:
            raise SettingsError(
                f"compare.region is '{study.compare.region}', but the regions are: {', '.join(sorted(regions))}."
            )
        # responses are averaged over the sentences' times, which are not in the features
        heard = (pieces.sentences.onset, pieces.sentences.duration)
        when = [r.onset if isinstance(r, Recording) else r.ids for r in recordings]
        gather.spaces[subject] = design.space
        gather.warnings += design.space.remarks
        gather.subjects[subject] = _counts(design, recordings)
        return design, digest(*(r.values for r in recordings), *when, *heard)

    def _step(self, n: int = 1) -> None:
        self.done += n
        self.progress("fitting", self.done, self.n_fits)

    def _control(self, person: _SubjectFit, name: str) -> None:
        """Fit one control, which no confound is taken off."""
        (encoding,) = self._fits(person, dataclasses.replace(self.protocol, confounds=()), [name])
        self._enter(person, encoding, name, None, 0, 1)
        self._step()

    def _enter(
        self, person: _SubjectFit, encoding: Encoding, key: str, number: int | None, row: int, n_rows: int
    ) -> None:
        r = self.gather.add(encoding, key, number, person.design.space, ("r", "r2"))
        if not person.average:
            self.gather.add_map(key, row, n_rows, r)

    def _model(self, person: _SubjectFit, model: str, layers: Sequence[str]) -> Encoding:
        """Fit every layer of a model, and choose one in each outer fold; give its encoding."""
        gather, design = self.gather, person.design
        encodings: list[Encoding] = []
        fits = functools.partial(self._fits, person, self.protocol)
        for batch in person.engine.map(fits, _batches(layers, design, self.protocol, n_jobs(self.study))):
            encodings += batch
            gather.regimes[model] |= {e.regime for e in batch}
            self._step(len(batch))
        numbers = [layer_number(name) for name in layers]
        for i, (number, encoding) in enumerate(zip(numbers, encodings, strict=True)):
            self._enter(person, encoding, model, number, i, len(layers))
        best = choose_layers(encodings)
        gather.layers[model][design.subject] = [numbers[int(k)] for k in best]
        whole = assemble_chosen(encodings, best, design, self.protocol, f"{model}/chosen")
        r = gather.add(whole, model, None, design.space, ("r_chosen", "r2_chosen"))
        gather.warnings += diagnose(design, self.protocol, whole, [layers[int(np.median(best))]])
        if not person.average:
            gather.chosen[model].append(r)
            gather.add_edges(model, whole.penalty, self.protocol.penalties)
            self._ask(person, model, layers, encodings, best, whole)
        return whole

    def _ask(
        self,
        person: _SubjectFit,
        model: str,
        layers: Sequence[str],
        encodings: Sequence[Encoding],
        best: np.ndarray,
        whole: Encoding,
    ) -> None:
        """Ask all that is asked of the layer chosen in training: what it shares with controls, what chance gives."""
        design, protocol = person.design, self.protocol
        if self.sharing.wants(model):
            self.sharing.add(
                model,
                design,
                best,
                protocol,
                person.delays,
                self.kept,
                person.name,
                self.progress,
                person.engine,
            )
        chosen = [layers[int(k)] for k in best]
        each = list(zip(layers, encodings, strict=True))
        add_nulls(
            self.gather, design, whole, chosen, each, model, protocol, self.study.seed, self.n_subjects,
            person.engine,
        )  # fmt: skip
        folder = self.study.output_folder / "fits" / f"{design.subject}_{model}"
        if self.study.fit.predictions:
            write_predictions(design, chosen, protocol, whole, folder, self.engine)
        if self.study.fit.weights:
            write_weights(design, chosen, protocol, whole, folder / "weights.npy", self.engine)
        self._step(0)

    def _listen(self, design: Design, delays: np.ndarray) -> ScoredResponses | None:
        """Gather what the scores of one subject are of, for noise ceilings; None where nobody asks or could."""
        study, corpus, gather = self.study, self.corpus, self.gather
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
        held = scored_responses(design, self.protocol, delays)
        if not own_clocks and people >= FEWEST:
            gather.listeners.add(design.subject, held, design.space)
        return held

    def _hear_repeats(self, design: Design, held: ScoredResponses, encoded: Mapping[str, Encoding]) -> None:
        """Compute the ceiling of a repeated run, where the corpus has one and rows are its scans."""
        study, corpus, gather = self.study, self.corpus, self.gather
        run = str(getattr(corpus, "test_story", ""))
        if not hasattr(corpus, "repeats") or run not in set(held.segment.tolist()):
            return
        if study.design.rows != "scans":
            gather.no_repeats = f"The repeats of '{run}' give no ceiling: they are repeats of scans, and the rows are {study.design.rows}."
            return
        scored = {m: score(e) for m, e in encoded.items()}
        scores = {m: s.r_by_run[s.runs.tolist().index(run)] for m, s in scored.items()}
        rng = np.random.default_rng([study.seed, 8])
        n = max(100, study.inference.n_resamples // 10)
        found, why = repeat_ceiling(design, held, run, corpus.repeats(design.subject), scores, rng, n)
        gather.repeats += [found] if found is not None else []
        gather.no_repeats = why or gather.no_repeats

    def _delays(self, design: Design, name: str, engine: Engine) -> np.ndarray:
        """Choose delays by probes from every model, spread over its depth, or by the controls where there is none."""
        spaces, protocol, kept = self.spaces, self.protocol, self.kept
        probes = [layer for layers in spaces.of_model.values() for layer in _spread(layers)] or list(
            spaces.controls
        )
        if len(design.delays) == 1:
            return choose_delays(design, probes, protocol, engine)
        parts = [_x_digest(design, probe, protocol) for probe in probes]
        key = "delays-" + digest(
            parts, name, protocol.deciding(), list(design.delays), design.ids, design.run, FITTING
        )
        if key not in kept:
            kept.save(key, {"delays": choose_delays(design, probes, protocol, engine)})
        return np.asarray(kept.array(key, "delays"))

    def _fits(self, person: _SubjectFit, protocol: Protocol, names: Sequence[str]) -> list[Encoding]:
        """Fit feature spaces, or find the same fits again."""
        design, delays, kept = person.design, person.delays, self.kept
        decided = digest(
            person.name, protocol.deciding(), delays, design.ids, design.run, design.scans, FITTING
        )
        keys = {name: "fit-" + digest(_x_digest(design, name, protocol), decided) for name in names}
        missing = [name for name in names if keys[name] not in kept]
        arrays = ("r", "sse", "sst", "penalty", "inner")
        for fresh in fit_layers(design, missing, protocol, delays, False, self.engine) if missing else []:
            meta = {
                "pieces": fresh.segments.tolist(),
                "piece_run": fresh.segment_run.tolist(),
                "rows": fresh.row_segment.tolist(),
                "regime": fresh.regime,
            }
            kept.save(
                keys[fresh.name], {name: getattr(fresh, name).astype(np.float32) for name in arrays}, meta
            )
        return [_read_fit(design, name, keys[name], delays, kept, arrays) for name in names]


def _clock_of(study: Study, story: Story, recordings: Runs) -> list[str]:
    """Hold one subject's clock against the words; one person's response may be a scan early or late."""
    timed = [(story, r) for r in recordings if isinstance(r, Recording)]
    lag = find_lag(timed) if study.recording.clock != "trust" else None
    if lag is None or not lag.off:
        return []
    if lag.far and study.recording.clock == "refuse":
        raise_clock_error(lag)
    return [lag.sentence]


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


def _read_fit(
    design: Design, name: str, key: str, delays: np.ndarray, kept: Store, arrays: Sequence[str]
) -> Encoding:
    meta = kept.meta(key)
    found = {array: np.asarray(kept.array(key, array), dtype=np.float64) for array in arrays}
    return Encoding(
        name=name,
        subject=design.subject,
        segments=np.array(meta["pieces"]),
        segment_run=np.array(meta["piece_run"]),
        delay=np.broadcast_to(delays, found["penalty"].shape),
        row_segment=np.array(meta["rows"], dtype=object),
        regime=meta.get("regime", ""),
        **found,
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
