"""The report: one HTML file with figures, numbers, methods and references, made from results alone."""

from langcortex.report.html import write_report

__all__ = ["write_report"]
