"""The arena on processes and on a cluster: the cells are those of one process."""

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from piu_lora.jobs.arena.cells import CELLS
from piu_lora.jobs.arena.compare import compare
from tests.engine.test_engine import cluster  # noqa: F401
from tests.jobs.arena.test_compare import config

COST = {"seconds", "memory_bytes", "peak_bytes"}


def cells(folder: Path) -> list[Any]:
    """Every cell, without what it cost."""
    lines = gzip.decompress((folder / CELLS).read_bytes()).decode().splitlines()
    return sorted((without_cost(json.loads(line)) for line in lines), key=json.dumps)


def without_cost(cell: Any) -> Any:
    if isinstance(cell, dict):
        return {key: without_cost(value) for key, value in cell.items() if key not in COST}
    return [without_cost(value) for value in cell] if isinstance(cell, list) else cell


def folders(tmp_path: Path, address: str) -> Iterator[Path]:
    for name, options in {
        "alone": {},
        "processes": {"processes": 2},
        "ray": {"engine": "ray", "processes": 0, "address": address},
    }.items():
        compare(tmp_path / name, ["untouched", "uce"], people=1, seeds=1, config=config(), **options)
        yield tmp_path / name


@pytest.mark.slow
def test_the_same_cells_whoever_runs_them(
    tmp_path: Path,
    cluster: str,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    alone, processes, ray = (cells(folder) for folder in folders(tmp_path, cluster))
    assert len(alone) == 2
    assert alone == processes
    assert alone == ray
