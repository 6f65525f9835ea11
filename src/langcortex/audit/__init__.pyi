from .ablation import ablate, write_ablation
from .calibration import Calibration, calibrate, write_calibration
from .findings import Audit, Finding, sorted_audit
from .result_checks import audit_ceiling, audit_results, penalties_at_edge
from .run import audited_run
from .study_leaks import audit_study

__all__ = [
    "Audit",
    "Calibration",
    "Finding",
    "ablate",
    "audit_ceiling",
    "audit_results",
    "audit_study",
    "audited_run",
    "calibrate",
    "penalties_at_edge",
    "sorted_audit",
    "write_ablation",
    "write_calibration",
]
