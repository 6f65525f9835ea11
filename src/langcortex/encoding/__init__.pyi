from .nested_cv import fit, fit_layers
from .protocol import Protocol
from .scores import Encoding, Scores, score
from .selection import choose_delays

__all__ = ["Encoding", "Protocol", "Scores", "choose_delays", "fit", "fit_layers", "score"]
