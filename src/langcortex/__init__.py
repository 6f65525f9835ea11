"""langcortex: how much of the brain's response to language does a language model explain?

The names below are the public ones. Each is loaded when it is first used, so that ``import langcortex`` is quick.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from langcortex.clock import Lag, find_lag
    from langcortex.comparison import Comparison, compare
    from langcortex.design import HRF, Delays, Design, align, align_responses, align_sentences
    from langcortex.encoding import Encoding, Scores, choose_delays, fit, fit_layers, score
    from langcortex.errors import LangcortexError
    from langcortex.features import Features, Layers, control, extract, load_model
    from langcortex.protocol import Protocol
    from langcortex.recording import Cleaning, Recording, Responses, read_recording
    from langcortex.report import write_report
    from langcortex.results import Results
    from langcortex.settings import Study, read_study
    from langcortex.space import Space, volume_space
    from langcortex.story import Story, make_story, read_story
    from langcortex.study import run_study, write_results
    from langcortex.text import with_text, written

__version__ = "0.1.0"

_HOMES = {
    "story": ("Story", "make_story", "read_story"),
    "recording": ("Cleaning", "Recording", "Responses", "read_recording"),
    "space": ("Space", "volume_space"),
    "features": ("Features", "Layers", "control", "extract", "load_model"),
    "design": ("Delays", "Design", "HRF", "align", "align_responses", "align_sentences"),
    "clock": ("Lag", "find_lag"),
    "text": ("with_text", "written"),
    "protocol": ("Protocol",),
    "encoding": ("Encoding", "Scores", "choose_delays", "fit", "fit_layers", "score"),
    "comparison": ("Comparison", "compare"),
    "results": ("Results",),
    "report": ("write_report",),
    "settings": ("Study", "read_study"),
    "study": ("run_study", "write_results"),
    "errors": ("LangcortexError",),
}

__all__ = [
    "HRF",
    "Cleaning",
    "Comparison",
    "Delays",
    "Design",
    "Encoding",
    "Features",
    "Lag",
    "LangcortexError",
    "Layers",
    "Protocol",
    "Recording",
    "Responses",
    "Results",
    "Scores",
    "Space",
    "Story",
    "Study",
    "align",
    "align_responses",
    "align_sentences",
    "choose_delays",
    "compare",
    "control",
    "extract",
    "find_lag",
    "fit",
    "fit_layers",
    "load_model",
    "make_story",
    "read_recording",
    "read_story",
    "read_study",
    "run_study",
    "score",
    "volume_space",
    "with_text",
    "write_report",
    "write_results",
    "written",
]


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(f"langcortex.{module}"), name)
    raise AttributeError(f"module 'langcortex' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
