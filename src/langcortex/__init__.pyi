from .brain.recording import Cleaning, Recording, Responses, read_recording
from .brain.space import Space
from .design.design import HRF, Delays, Design, align_responses, align_scans, align_sentences
from .design.lag import find_lag
from .encoding.nested_cv import fit, fit_layers
from .encoding.null_test import null_test
from .encoding.protocol import Protocol
from .encoding.scores import Encoding, Scores, score
from .encoding.selection import choose_delays
from .errors import LangcortexError
from .features.controls.registry import control
from .features.models.extraction import extract
from .features.models.layers import Layers
from .features.models.loading import load_model
from .features.table import Features
from .results.results import Results
from .stats.comparison import Comparison, compare
from .stimulus.story import Story, read_story
from .study.run import run_study, write_results
from .study.settings import Study
from .study.settings_file import read_study

__version__: str

__all__ = [
    "HRF",
    "Cleaning",
    "Comparison",
    "Delays",
    "Design",
    "Encoding",
    "Features",
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
    "align_responses",
    "align_scans",
    "align_sentences",
    "choose_delays",
    "compare",
    "control",
    "extract",
    "find_lag",
    "fit",
    "fit_layers",
    "load_model",
    "null_test",
    "read_recording",
    "read_story",
    "read_study",
    "run_study",
    "score",
    "write_results",
]
