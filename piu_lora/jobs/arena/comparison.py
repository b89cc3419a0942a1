"""The tables and the picture of an arena, made of its cells."""

import json
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from piu_lora.adapter import disk_errors, write_file
from piu_lora.evidence import comparison
from piu_lora.evidence.curves import curves_picture
from piu_lora.evidence.equal import equal_rows, equal_table
from piu_lora.jobs.arena.arena import FORMAT
from piu_lora.markdown import as_name

__all__ = ["Comparison", "write_comparison"]


@dataclass(frozen=True)
class Comparison:
    """The cells that are there, a row for each variant and recognizer, what sets them apart, all as text, and
    the files written.
    """

    cells: list[comparison.Cell]
    rows: list[comparison.Row]
    differences: list[comparison.Difference]
    text: str
    files: list[Path]


def write_comparison(
    folder: Path,
    cells: list[comparison.Cell],
    expected: int,
    against: str,
    baselines: dict[str, dict[str, Any]],
    curves: dict[str, str],
) -> Comparison:
    """Make the tables and the picture of the cells at hand, and write them.

    Args:
        expected: how many cells a contender has, once all are run.
        against: the contender that the others are compared with.
        baselines: settings of the baselines, by contender.
        curves: by contender, the one on whose curve of strength it lies; where a curve has two points, the
            methods are also compared at equal forgetting.
    """
    rows, differences = comparison.rows_of(cells), comparison.differences_from(cells, against)
    people, seeds = len({cell.person for cell in cells}), sorted({cell.seed for cell in cells})
    fewest = min(Counter(cell.variant for cell in cells).values())
    parts = [_introduction(people, len(seeds), complete=fewest >= expected)]
    parts.append(comparison.comparison_table(rows))
    if differences:
        parts.append(comparison.difference_table(differences))
    if baselines:
        lines = (f"- {as_name(name)}: {as_name(_listed(settings))}" for name, settings in baselines.items())
        parts.append("\n".join(["Settings of the baselines:", "", *lines]))
    equal = equal_rows(cells, curves, curves.get(against))
    if equal:
        parts.append(
            "At equal forgetting: what others keep where a method has forgotten so far, read off the curve "
            "of its strength for every person. Medians over people and seeds, 95 % intervals over people."
        )
        parts.append(equal_table(equal, curves.get(against)))
    document = {
        "format": FORMAT,
        "people": people,
        "seeds": seeds,
        "rows": [asdict(row) for row in rows],
        "differences": [asdict(difference) for difference in differences],
    }
    if equal:
        document["equal"] = [asdict(row) for row in equal]
    text = "\n\n".join(parts)
    files = {
        "comparison.md": f"{text}\n".encode(),
        "comparison.csv": comparison.comparison_csv(rows).encode(),
        "comparison.json": (json.dumps(document, indent=1) + "\n").encode(),
        "comparison.png": comparison.comparison_picture(rows),
    }
    if equal:
        files["comparison-curves.png"] = curves_picture(cells, curves)
    with disk_errors(f"the comparison to {str(folder)!r}"):
        for name, content in files.items():
            write_file(folder / name, content)
    return Comparison(cells, rows, differences, text, [folder / name for name in files])


def _introduction(people: int, seeds: int, *, complete: bool) -> str:
    fewer = "" if complete else " A method with fewer cells met only the first of these people, or one seed."
    return (
        f"{people} people, {seeds} seeds.{fewer} "
        "Medians over people and seeds (recognised and verified: means) with 95 % intervals over people. "
        "Retained people and the anchor: ISM after/before. Verified: at a "
        "false-accept rate of 1e-3, against the person's centroid in the bank."
    )


def _listed(settings: dict[str, Any]) -> str:
    """``key value, key value``; sections in brackets."""
    return ", ".join(
        f"{key} ({_listed(value)})" if isinstance(value, dict) else f"{key} {value}"
        for key, value in settings.items()
    )
