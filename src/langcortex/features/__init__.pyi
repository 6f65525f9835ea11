from .controls.registry import CONTROLS, control
from .models.extraction import extract
from .models.layers import Layers
from .models.loading import LanguageModel, load_model
from .table import Features

__all__ = ["CONTROLS", "Features", "LanguageModel", "Layers", "control", "extract", "load_model"]
