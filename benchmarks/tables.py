"""Fill the tables of the documentation from benchmarks/results.

    python -m benchmarks.tables            # write them anew
    python -m benchmarks.tables --check    # exit 1 where a table on a page differs from its results

A page holds a table between two comments, ``<!-- table: NAME -->`` and ``<!-- end -->``; what stands between
them is replaced. Every table is made of the JSON files in benchmarks/results: nothing is measured here.
"""

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import (
    anchor_safety,
    anchor_search,
    bank_build,
    base_quality,
    capacity,
    closed_shape,
    decoys,
    forgetting,
    hosts,
    real_shape,
    reports,
    side_by_side,
    stacks,
    step_cost,
    unseen,
)
from benchmarks.output import parser as new_parser
from piu_lora.evidence import Difference, Row, comparison_table, difference_table
from piu_lora.evidence.report import Report, read_report
from piu_lora.groups import FORGET, NEAREST, RANDOM

__all__ = ["PAGES", "TABLES", "filled", "main"]

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PAGES = ("README.md", "docs/results.md", "docs/how-to/hosts.md")
_BLOCK = re.compile(r"(<!-- table: (?P<name>[a-z-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def _result(name: str) -> Any:
    return json.loads((RESULTS / f"{name}.json").read_text())


def _of(module: Any, name: str, key: str = "") -> Callable[[], str]:
    """The table that a benchmark makes of its result, or of one part of it."""

    def table() -> str:
        result = _result(name)
        text: str = module.table(result[key] if key else result)
        return text

    return table


def _arena_rows() -> list[Row]:
    return [Row(**row) for row in _result("compare/comparison")["rows"]]


def _arena_differences() -> str:
    differences = _result("compare/comparison")["differences"]
    return difference_table([Difference(**difference) for difference in differences])


def _baseline_settings() -> str:
    """The last part of the arena's report: how the baselines were set."""
    text = (RESULTS / "compare" / "comparison.md").read_text()
    return text[text.index("Settings of the") :].strip()


def _reports() -> dict[str, Report]:
    return {method: read_report(RESULTS / "reports" / f"{method}.json") for method in reports.METHODS}


def _real_shape_measured() -> str:
    result = _result("real_shape")
    return real_shape.measured_table(result["measured"], result["device"])


def _summary() -> str:
    """The README's table: the arena, by the recognizer that only evaluates."""
    chosen = (
        "untouched",
        "gate-encoder",
        "closed-encoder",
        "distil-encoder",
        "piu",
        "piu-dense",
        "esd",
        "uce",
        "siss",
        "wid",
    )
    rows = {row.variant: row for row in _arena_rows() if row.recognizer == "evaluating"}
    lines = [
        "| method | person | verified | random people | nearest ten | seconds | stored, MB |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for name in chosen:
        row = rows[name]
        cells = [_middle(row, figure) for figure in (FORGET, "verified", RANDOM, NEAREST)]
        lines.append(f"| {name} | {' | '.join(cells)} | {row.seconds:.0f} | {row.stored_bytes / 1e6:.2f} |")
    return "\n".join(lines)


def _middle(row: Row, figure: str) -> str:
    value = row.figures[figure]
    return "-" if value is None else f"{value[0]:.3f}"


TABLES: dict[str, Callable[[], str]] = {
    "summary": _summary,
    "forgetting": _of(forgetting, "forgetting", "people"),
    "arena": lambda: comparison_table(_arena_rows()),
    "arena-differences": _arena_differences,
    "arena-baselines": _baseline_settings,
    "decoys": _of(decoys, "decoys"),
    "capacity": _of(capacity, "capacity", "results"),
    "stacks-short": lambda: stacks.short_table(_result("stacks")),
    "stacks": _of(stacks, "stacks"),
    "reports": lambda: reports.table(_reports()),
    "findings": lambda: reports.findings(_reports()).strip(),
    "base": _of(base_quality, "base_quality"),
    "step-cost": _of(step_cost, "step_cost"),
    "real-shape": _of(real_shape, "real_shape", "counted"),
    "real-shape-measured": _real_shape_measured,
    "closed-shape": _of(closed_shape, "closed_shape"),
    "bank-build": _of(bank_build, "bank_build"),
    "anchor-search": _of(anchor_search, "anchor_search"),
    "side-by-side": _of(side_by_side, "side_by_side"),
    "anchor-safety": _of(anchor_safety, "anchor_safety"),
    "unseen": _of(unseen, "unseen"),
    "hosts": _of(hosts, "hosts"),
}


def filled(text: str) -> str:
    """A page with every table made anew.

    Raises:
        KeyError: a page asks for a table that nobody makes.
    """
    return _BLOCK.sub(lambda block: f"{block[1]}\n{TABLES[block['name']]()}\n\n{block[3]}", text)


def main() -> None:
    """Write the pages, or compare them."""
    parser = new_parser(__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 where a page is stale")
    check = parser.parse_args().check
    stale = []
    for page in PAGES:
        text = (ROOT / page).read_text()
        if (fresh := filled(text)) != text:
            stale.append(page)
            if not check:
                (ROOT / page).write_text(fresh)
    print(f"{'stale' if check else 'written'}: {', '.join(stale) or 'none'}")
    sys.exit(1 if check and stale else 0)


if __name__ == "__main__":
    main()
