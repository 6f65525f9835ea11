"""Findings: one line each, leaks first."""

from langcortex.audit import Audit, Finding, sorted_audit


def test_a_finding_is_one_line() -> None:
    finding = Finding("leak", "Rows are shared.", "All.", ("a", "b"), "Stop.")
    assert str(finding) == "Rows are shared. All. First: a, b. Fix: Stop."
    (row,) = Audit((finding,)).as_rows()
    assert row["where"] == ("a", "b")
    assert (list(row), row["mend"]) == (["level", "what", "how_bad", "where", "mend"], "Stop.")  # as in files


def test_findings_of_before_and_after_are_put_in_order() -> None:
    note, leak = Finding("note", "a", "b", (), "c"), Finding("leak", "d", "e", (), "f")
    assert sorted_audit([note, leak]).findings == (leak, note)
