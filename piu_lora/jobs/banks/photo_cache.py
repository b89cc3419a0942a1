"""What was read from photographs so far, so that an interrupted bank build goes on where it stopped."""

import hashlib
import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import numpy as np
import torch

from piu_lora.writing import PRIVATE

__all__ = ["PhotoCache", "Reading"]


_TABLE = """
CREATE TABLE IF NOT EXISTS photo (
    photo TEXT, reader TEXT, width INTEGER, rows BLOB, reason TEXT, turned INTEGER,
    PRIMARY KEY (photo, reader)
)
"""


class Reading:
    """What one photograph holds: (k, d) float32 unit rows or the reason why it holds nothing, and by how many
    degrees it was turned.
    """

    def __init__(self, embeddings: torch.Tensor | None = None, reason: str = "", turned: int = 0) -> None:
        self.embeddings, self.reason, self.turned = embeddings, reason, turned


class PhotoCache:
    """An SQLite file beside the bank, for its owner alone.

    Rows are found by the SHA-256 of a photograph's bytes and of the reader's settings: no path and no name is
    kept.
    """

    def __init__(self, connection: sqlite3.Connection, reader: str) -> None:
        self._connection, self._reader = connection, reader

    @classmethod
    @contextmanager
    def open(cls, path: Path, settings: object) -> Iterator[Self]:
        """Open or create; ``settings`` say how photographs are read."""
        reader = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
        connection = _connect(path)
        try:
            yield cls(connection, reader)
        except sqlite3.Error as error:
            raise OSError(f"{path.name}: {error}") from error
        finally:
            connection.close()

    def find(self, photo: str) -> Reading | None:
        """What was read from the photograph with that digest."""
        query = "SELECT width, rows, reason, turned FROM photo WHERE photo = ? AND reader = ?"
        record = self._connection.execute(query, (photo, self._reader)).fetchone()
        if record is None:
            return None
        width, rows, reason, turned = record
        if reason:
            return Reading(reason=reason)
        return Reading(
            torch.from_numpy(np.frombuffer(rows, dtype="<f4").reshape(-1, width).copy()), turned=turned
        )

    def keep(self, readings: Sequence[tuple[str, Reading]]) -> None:
        """Store what was read; one transaction."""
        with self._connection:
            for photo, reading in readings:
                rows = (
                    reading.embeddings.numpy().astype("<f4")
                    if reading.embeddings is not None
                    else np.zeros((0, 0), "<f4")
                )
                values = (photo, self._reader, rows.shape[1], rows.tobytes(), reading.reason, reading.turned)
                self._connection.execute("INSERT OR REPLACE INTO photo VALUES (?, ?, ?, ?, ?, ?)", values)


def _connect(path: Path) -> sqlite3.Connection:
    """Open the file; a damaged one is thrown away, since the photographs are still there to be read again."""
    for last in (False, True):
        path.touch(mode=PRIVATE)
        path.chmod(PRIVATE)
        connection = sqlite3.connect(path)
        try:
            connection.execute(_TABLE)
        except sqlite3.Error as error:
            connection.close()
            if last:
                raise OSError(f"{path.name}: {error}") from error
            path.unlink()
        else:
            break
    return connection
