"""The findings of an audit: what was found, how bad it is, and how to fix it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

LEVELS = ("leak", "risk", "note")
FILE_KEYS = {"fix": "mend"}  # attributes that tables and files call by another name


@dataclass(frozen=True)
class Finding:
    """One thing that a reader of the results should know.

    Attributes
    ----------
    level : "leak" (something that is tested on test rows was learnt from them), "risk" (it may have been), or "note"
    what : what was found
    how_bad : how much, in numbers
    where : the first few rows or runs
    fix : what to do; "mend" in tables and files
    """

    level: str
    what: str
    how_bad: str
    where: tuple[str, ...]
    fix: str

    def __str__(self) -> str:
        first = f" First: {', '.join(self.where)}." if self.where else ""
        return f"{self.what} {self.how_bad}{first} Fix: {self.fix}"


@dataclass(frozen=True)
class Audit:
    """The findings of one study, leaks first."""

    findings: tuple[Finding, ...]

    @property
    def leaks(self) -> tuple[Finding, ...]:
        """The findings that make scores meaningless."""
        return tuple(f for f in self.findings if f.level == "leak")

    def as_rows(self) -> list[dict[str, Any]]:
        """Return one plain mapping per finding."""
        return [{FILE_KEYS.get(key, key): value for key, value in asdict(f).items()} for f in self.findings]


def sorted_audit(findings: Sequence[Finding]) -> Audit:
    """Put leaks first, then risks, then notes."""
    return Audit(tuple(sorted(findings, key=lambda finding: LEVELS.index(finding.level))))
