from .design import HRF, Delays, Design, align_responses, align_scans, align_sentences
from .lag import Lag, find_lag

__all__ = ["HRF", "Delays", "Design", "Lag", "align_responses", "align_scans", "align_sentences", "find_lag"]
