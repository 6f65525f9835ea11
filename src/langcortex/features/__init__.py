"""Features: what a model, or the text itself, says about each piece of a story."""

from langcortex.features.controls import CONTROLS, control
from langcortex.features.extraction import extract
from langcortex.features.models import LanguageModel, load_model
from langcortex.features.table import Features, Layers

__all__ = ["CONTROLS", "Features", "LanguageModel", "Layers", "control", "extract", "load_model"]
