"""Whether a number means something: what leaks in a study, and what noise gets from it."""

from langcortex.audit.after import audit_results, penalties_at_edge
from langcortex.audit.before import audit_study
from langcortex.audit.calibration import Calibration, calibrate
from langcortex.audit.findings import Audit, Finding

__all__ = [
    "Audit",
    "Calibration",
    "Finding",
    "audit_results",
    "audit_study",
    "calibrate",
    "penalties_at_edge",
]
