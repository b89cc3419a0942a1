"""The file of an arena's cells: whole after every write, whoever else writes; older folders are read."""

import gzip
import json
import multiprocessing
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from piu_lora.errors import BadInput, EnvironmentProblem
from piu_lora.evidence import Cell
from piu_lora.jobs.arena.cells import CELLS, CellStore, compressed

CELL = Cell(
    "piu train.steps=3", 4, 42, 1.5, None, 205, {"evaluating": {"forget": 0.1}}, settings={"eta": 1.25}
)


def add_many(folder: Path, person: int, count: int) -> None:
    store = CellStore(folder)
    for seed in range(count):
        store.add(replace(CELL, person=person, seed=seed))


def write_earlier(folder: Path, cell: Cell, name: str) -> Path:
    """As arenas were kept before: a folder, a file for each cell."""
    (folder / "cells").mkdir(exist_ok=True)
    path = folder / "cells" / name
    path.write_text(json.dumps(asdict(cell), sort_keys=True) + "\n")
    return path


def test_a_cell_comes_back_as_it_was(tmp_path: Path) -> None:
    CellStore(tmp_path).add(CELL)
    assert CellStore(tmp_path).find(CELL.variant, 4, 42) == CELL
    for other in (("piu", 4, 42), (CELL.variant, 3, 42), (CELL.variant, 4, 43)):
        assert CellStore(tmp_path).find(*other) is None


def test_a_cell_takes_the_place_of_one_of_the_same_name(tmp_path: Path) -> None:
    store = CellStore(tmp_path)
    for seconds in (1.0, 2.0):
        store.add(replace(CELL, seconds=seconds))
    assert store.find(CELL.variant, 4, 42) == replace(CELL, seconds=2.0)
    assert len(gzip.decompress((tmp_path / CELLS).read_bytes()).splitlines()) == 1


def test_the_bytes_do_not_depend_on_the_order(tmp_path: Path) -> None:
    cells = [replace(CELL, person=person) for person in range(3)]
    assert compressed(cells) == compressed(cells[::-1])


def test_processes_that_add_at_once_lose_nothing(tmp_path: Path) -> None:
    fresh = multiprocessing.get_context("fork")
    workers = [fresh.Process(target=add_many, args=(tmp_path, person, 25)) for person in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * 4
    store = CellStore(tmp_path)
    assert all(store.find(CELL.variant, person, seed) for person in range(4) for seed in range(25))
    assert {path.name for path in tmp_path.iterdir()} <= {CELLS, f".{CELLS}.lock"}


def test_a_folder_of_cells_is_still_read(tmp_path: Path) -> None:
    path = write_earlier(tmp_path, CELL, "piu_train.steps=3-004-42.json")
    store = CellStore(tmp_path)
    assert store.find(CELL.variant, 4, 42) == CELL
    store.add(replace(CELL, seconds=9.0))
    assert CellStore(tmp_path).find(CELL.variant, 4, 42) == replace(CELL, seconds=9.0)
    assert path.exists()


def test_damage_is_told_with_what_to_do(tmp_path: Path) -> None:
    path = write_earlier(tmp_path, CELL, "uce-000-42.json")
    path.write_text(path.read_text()[:40])
    with pytest.raises(BadInput, match=r"uce-000-42\.json' is damaged: .*; delete it, and it is run again"):
        CellStore(tmp_path).find("uce", 0, 42)
    CellStore(tmp_path).add(CELL)
    whole = (tmp_path / CELLS).read_bytes()
    for content in (
        whole[:40],
        b"not gzip",
        gzip.compress(b"{}\n"),
        gzip.compress(b"{\n"),
        gzip.compress(b"3\n"),
    ):
        (tmp_path / CELLS).write_bytes(content)
        with pytest.raises(BadInput, match=r"cells\.jsonl\.gz' are damaged: .*restore the file"):
            CellStore(tmp_path).find(CELL.variant, 4, 42)
        with pytest.raises(BadInput, match="are damaged"):
            CellStore(tmp_path).add(CELL)
        assert (tmp_path / CELLS).read_bytes() == content


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EnvironmentProblem, match="cannot write a cell"):
        CellStore(tmp_path / "file").add(CELL)
