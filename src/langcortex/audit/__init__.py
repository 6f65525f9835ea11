"""Whether a number means something: what leaks in a study, and what noise gets from it."""

from langcortex.ablation import Ablation
from langcortex.audit.ablating import ablate, write_ablation
from langcortex.audit.after import audit_ceiling, audit_results, penalties_at_edge
from langcortex.audit.before import audit_study
from langcortex.audit.calibration import Calibration, calibrate, write_calibration
from langcortex.audit.findings import Audit, Finding, sorted_audit

__all__ = [
    "Ablation",
    "Audit",
    "Calibration",
    "Finding",
    "ablate",
    "audit_ceiling",
    "audit_results",
    "audit_study",
    "calibrate",
    "penalties_at_edge",
    "sorted_audit",
    "write_ablation",
    "write_calibration",
]
