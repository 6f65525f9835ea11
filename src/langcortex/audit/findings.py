"""What an audit says: findings, each with how bad it is and its mend."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

LEVELS = ("leak", "risk", "note")


@dataclass(frozen=True)
class Finding:
    """One thing a reader of the results should know.

    Attributes
    ----------
    level : "leak" (test rows took part in what is tested on them), "risk" (they may have), or "note"
    what : what was found
    how_bad : how much, in numbers
    where : rows or runs, the first few
    mend : what to do
    """

    level: str
    what: str
    how_bad: str
    where: tuple[str, ...]
    mend: str

    def __str__(self) -> str:
        at = f" First: {', '.join(self.where)}." if self.where else ""
        return f"{self.what} {self.how_bad}{at} Mend: {self.mend}"


@dataclass(frozen=True)
class Audit:
    """The findings of one study, leaks first."""

    findings: tuple[Finding, ...]

    @property
    def leaks(self) -> tuple[Finding, ...]:
        """Those that make scores say nothing."""
        return tuple(f for f in self.findings if f.level == "leak")

    def as_rows(self) -> list[dict[str, Any]]:
        """Give one plain mapping a finding."""
        return [asdict(finding) for finding in self.findings]


def sorted_audit(found: Sequence[Finding]) -> Audit:
    """Put leaks first, then risks, then notes."""
    return Audit(tuple(sorted(found, key=lambda one: LEVELS.index(one.level))))
