"""The cells of an arena, kept in one compressed file: a line of JSON each, in the order of their names."""

import gzip
import json
import zlib
from dataclasses import asdict
from pathlib import Path
from typing import Any

from filelock import FileLock

from piu_lora.adapter import disk_errors, write_file
from piu_lora.errors import BadInput
from piu_lora.evidence import Cell
from piu_lora.writing import ORDINARY

__all__ = ["CELLS", "CellStore"]

CELLS = "cells.jsonl.gz"
Key = tuple[str, int, int]  # variant, person, seed


class CellStore:
    """The cells of the arena in ``folder``.

    Arenas of earlier versions hold a folder ``cells/`` with a file for each cell. It is still read, and left
    as it is; the compressed file takes precedence.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._path = folder, folder / CELLS
        self._cells: dict[Key, Cell] | None = None

    def find(self, variant: str, person: int, seed: int) -> Cell | None:
        """The cell of a variant, a person and a seed, or None where there is none.

        Raises:
            BadInput: the file that holds it is damaged.
        """
        if self._cells is None:
            self._cells = self._read()
        return self._cells.get((variant, person, seed)) or self._earlier(variant, person, seed)

    def all(self) -> list[Cell]:
        """The cells of the compressed file, in its order.

        Raises:
            BadInput: it is damaged.
        """
        return list(self._read().values())

    def add(self, cell: Cell) -> None:
        """Write a cell, in the place of one of the same variant, person and seed.

        Other processes may add to the same arena at the same time.

        Raises:
            BadInput: the file is damaged.
            EnvironmentProblem: the folder cannot be written.
        """
        # The lock's file stays: to remove it while others wait for it would let two of them in.
        lock = FileLock(self._path.with_name(f".{CELLS}.lock"), mode=ORDINARY)
        with disk_errors(f"a cell to {str(self._folder)!r}"), lock:
            cells = self._read()  # anew: another process may have added to it
            cells[cell.variant, cell.person, cell.seed] = cell
            write_file(self._path, compressed(list(cells.values())))
        self._cells = cells

    def _read(self) -> dict[Key, Cell]:
        try:
            lines = gzip.decompress(self._path.read_bytes()).splitlines()
            cells = [Cell(**json.loads(line)) for line in lines]
        except FileNotFoundError:
            return {}
        except (OSError, EOFError, zlib.error, ValueError, TypeError) as error:
            raise BadInput(
                f"the cells in {str(self._path)!r} are damaged: {error}; restore the file, or delete it, and "
                "all are run again"
            ) from error
        return {(cell.variant, cell.person, cell.seed): cell for cell in cells}

    def _earlier(self, variant: str, person: int, seed: int) -> Cell | None:
        name = "".join(letter if letter.isalnum() or letter in ".-=_" else "_" for letter in variant)
        path = self._folder / "cells" / f"{name}-{person:03d}-{seed}.json"
        try:
            return Cell(**json.loads(path.read_text()))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError) as error:
            raise BadInput(
                f"the cell {str(path)!r} is damaged: {error}; delete it, and it is run again"
            ) from error


def compressed(cells: list[Cell]) -> bytes:
    """The file's content; the same cells give the same bytes."""
    ordered = sorted(cells, key=lambda cell: (cell.variant, cell.person, cell.seed))
    lines = "".join(json.dumps(_plain(cell), sort_keys=True) + "\n" for cell in ordered)
    return gzip.compress(lines.encode(), mtime=0)


def _plain(cell: Cell) -> dict[str, Any]:
    """As it is stored; cells of earlier versions, which have no images, stay as they were."""
    values = asdict(cell)
    if not cell.images:
        del values["images"]
    return values
