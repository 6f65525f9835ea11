"""What stands around every text that each model of a study reads, and whether compared models agree in it."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from typing import Any

from langcortex.encoding.protocol import PUBLISHED
from langcortex.errors import SettingsError
from langcortex.features.models.loading import load_tokenizer
from langcortex.features.models.tokens import Frame, FrameText, describe_frame, make_frame
from langcortex.study.settings import ModelSettings, Study


@functools.lru_cache(maxsize=32)
def _load_tokenizer(source: str, revision: str | None, trust_remote_code: bool) -> Any:
    return load_tokenizer(source, revision, trust_remote_code=trust_remote_code)


def read_tokenizer(model: ModelSettings) -> Any:
    """Load the tokenizer of a model, once for all of its twins.

    Raises
    ------
    ModelError : as `langcortex.load_model`
    """
    return _load_tokenizer(model.source, model.revision, model.trust_remote_code)


def make_model_frame(study: Study, model: ModelSettings, tokenizer: Any) -> Frame:
    """Make the frame of a model as the study says.

    Raises
    ------
    ModelError, SettingsError : as `langcortex.features.models.tokens.make_frame`
    """
    f = study.features
    return make_frame(tokenizer, model.label, f.bos, f.prefix, f.suffix, f.chat, f.system)


def read_frames(study: Study) -> dict[str, FrameText]:
    """Work out the frame of every model from its tokenizer, without loading weights: label → frame."""
    frames = {}
    for model in study.models:
        tokenizer = read_tokenizer(model)
        frames[model.label] = describe_frame(make_model_frame(study, model, tokenizer), tokenizer)
    return frames


def frame_differences(study: Study, frames: Mapping[str, FrameText]) -> Iterator[tuple[str, str, list[str]]]:
    """Yield the pairs of models that the study compares and whose frames differ, and in what."""
    label_of = {name: m.label for m in study.models for name in study.features.curves(m.label).values()}
    labels = [m.label for m in study.models]
    named = study.compare.pairs
    pairs = [labels[:2]] if named is None else [[label_of[a], label_of[b]] for a, b in named]
    for pair in dict.fromkeys(tuple(pair) for pair in pairs if len(pair) == 2 and set(pair) <= set(frames)):
        differences = frames[pair[0]].differences(frames[pair[1]])
        if differences:
            yield pair[0], pair[1], differences


def check_frames(study: Study, frames: Mapping[str, FrameText]) -> None:
    """Check that compared models agree in the tokens around texts, unless the study says what these are.

    Raises
    ------
    SettingsError : their tokenizers add different ones, and the study did not ask for that
    """
    f = study.features
    if f.bos is not None or f.chat or study.protocol.preset == PUBLISHED:
        return
    for a, b, differences in frame_differences(study, frames):
        raise SettingsError(
            f"'{a}' and '{b}' are compared, but their tokenizers put different tokens around every text: "
            f"{', '.join(differences)}. A difference may be due to that. Set features.bos = true or false for both, or "
            'features.bos = "tokenizer" if it is meant.'
        )
