from .results import Results, tidy

__all__ = ["Results", "tidy"]
