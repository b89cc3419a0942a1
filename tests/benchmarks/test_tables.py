"""The tables of the documentation are those of benchmarks/results."""

import gzip
import json
import shutil
from pathlib import Path

import pytest

from benchmarks import tables
from benchmarks.tables import PAGES, RESULTS, ROOT, TABLES, filled
from piu_lora.evidence import Cell, comparison_table, difference_table, differences_from, rows_of
from piu_lora.jobs.arena.cells import CELLS, CellStore

# The tables that a benchmark also writes beside its figures.
WRITTEN = {
    "forgetting": "forgetting.md",
    "decoys": "decoys.md",
    "capacity": "capacity.md",
    "stacks": "stacks.md",
    "reports": "reports/reports.md",
    "findings": "reports/reports.md",
    "step-cost": "step_cost.md",
    "real-shape": "real_shape.md",
    "real-shape-measured": "real_shape.md",
    "closed-shape": "closed_shape.md",
    "bank-build": "bank_build.md",
    "anchor-search": "anchor_search.md",
    "anchor-safety": "anchor_safety.md",
    "unseen": "unseen.md",
    "hosts": "hosts.md",
    "arena": "compare/comparison.md",
    "arena-differences": "compare/comparison.md",
    "arena-baselines": "compare/comparison.md",
}


@pytest.mark.parametrize("page", PAGES)
def test_the_tables_of_a_page_are_current(page: str) -> None:
    text = (ROOT / page).read_text()
    assert "<!-- table: " in text
    assert filled(text) == text, "run `python -m benchmarks.tables`"


def test_every_table_is_shown() -> None:
    text = "".join((ROOT / page).read_text() for page in PAGES)
    assert [name for name in TABLES if f"<!-- table: {name} -->" not in text] == []


def test_a_stale_table_is_found_and_mended() -> None:
    page = (ROOT / "docs/results.md").read_text()
    stale = page.replace("| wid |", "| wid, better |")
    assert stale != page
    assert filled(stale) == page


def test_a_table_that_nobody_makes_is_told() -> None:
    with pytest.raises(KeyError, match="nothing"):
        filled("<!-- table: nothing -->\n<!-- end -->")


@pytest.mark.parametrize("name", WRITTEN)
def test_the_table_beside_the_figures_is_the_same(name: str) -> None:
    assert TABLES[name]() in (RESULTS / WRITTEN[name]).read_text()


def test_a_page_that_is_stale_fails_the_check(tmp_path: Path, monkeypatch, capsys) -> None:
    for page in PAGES:
        (tmp_path / page).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / page, tmp_path / page)
    monkeypatch.setattr(tables, "ROOT", tmp_path)
    for page, code in (("", 0), ("README.md", 1)):
        if page:
            text = (tmp_path / page).read_text().replace("| wid |", "| wid, better |")
            (tmp_path / page).write_text(text)
        monkeypatch.setattr("sys.argv", ["tables", "--check"])
        with pytest.raises(SystemExit) as end:
            tables.main()
        assert end.value.code == code
    assert "stale: README.md" in capsys.readouterr().out


def test_the_report_of_the_arena_follows_from_its_cells() -> None:
    """Of two methods, by the cells that are kept: the lines of the published tables, to the byte."""
    lines = gzip.decompress((RESULTS / "compare" / CELLS).read_bytes()).splitlines()
    cells = [Cell(**json.loads(line)) for line in lines]
    assert len(cells) == 640
    store = CellStore(RESULTS / "compare")
    assert all(store.find(cell.variant, cell.person, cell.seed) == cell for cell in cells)
    chosen = [cell for cell in cells if cell.variant in ("closed-encoder", "uce")]
    published = (RESULTS / "compare" / "comparison.md").read_text()
    tables_made = (
        comparison_table(rows_of(chosen)),
        difference_table(differences_from(chosen, "closed-encoder")),
    )
    rows = [
        line for table in tables_made for line in table.splitlines() if line.startswith(("| closed", "| uce"))
    ]
    assert len(rows) == 6
    assert all(row in published for row in rows)


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_bytes()) <= 10_240
