from .run import run_study, write_results
from .settings import Study
from .settings_file import read_study

__all__ = ["Study", "read_study", "run_study", "write_results"]
