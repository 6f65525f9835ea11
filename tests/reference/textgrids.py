"""TextGrids of the corpus of LeBel et al. 2023, for the tests that read them."""

from __future__ import annotations

from pathlib import Path

OVERLAP = 1.0000000000000002  # 1 + 2e-16
WORDS = [
    (0.0, OVERLAP, "{SP}"),
    (1.0, 1.5, "i"),
    (1.5, 1.9, "didn't"),
    (1.9, 2.0, "{br}"),
    (2.0, 2.4, "know"),
    (2.4, 3.0, "sp"),
    (3.0, 3.6, "Spain"),
    (3.6, 4.0, ""),
    (4.0, 4.5, "{LG}"),
    (4.5, 5.0, "null"),
]
Tier = tuple[str, list[tuple[float, float, str]]]


def long_grid(tiers: list[Tier]) -> str:
    out = [
        'File type = "ooTextFile"',
        'Object class = "TextGrid"',
        "",
        "xmin = 0 ",
        "xmax = 5 ",
        "tiers? <exists> ",
    ]
    out += [f"size = {len(tiers)} ", "item []: "]
    for i, (name, rows) in enumerate(tiers, 1):
        out += [f"    item [{i}]:", '        class = "IntervalTier" ', f'        name = "{name}" ']
        out += ["        xmin = 0 ", "        xmax = 5 ", f"        intervals: size = {len(rows)} "]
        for k, (begin, end, label) in enumerate(rows, 1):
            out += [f"        intervals [{k}]:", f"            xmin = {begin!r} "]
            out += [f"            xmax = {end!r} ", f'            text = "{label}" ']
    return "\n".join(out) + "\n"


def short_grid(tiers: list[Tier]) -> str:
    out = ['File type = "ooTextFile"', 'Object class = "TextGrid"', "", "0", "5", "<exists>", str(len(tiers))]
    for name, rows in tiers:
        out += ['"IntervalTier"', f'"{name}"', "0", "5", str(len(rows))]
        for begin, end, label in rows:
            out += [repr(begin), repr(end), f'"{label}"']
    return "\n".join(out) + "\n"


def tiers(words: list[tuple[float, float, str]] = WORDS, name: str = "word") -> list[Tier]:
    return [("phone", [(0.0, 2.5, "AH1"), (2.5, 5.0, "")]), (name, words), ("Stimulus", [(0.0, 5.0, "x")])]


def grid(base: Path, story: str, text: str | None = None, encoding: str = "utf-8") -> Path:
    path = base / "derivative" / "TextGrids" / f"{story}.TextGrid"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(long_grid(tiers()) if text is None else text, encoding=encoding)
    return path
