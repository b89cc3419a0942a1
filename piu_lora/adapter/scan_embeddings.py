"""Finding an embedding in bytes: raw in any precision, in base64 or hex, or written out in decimals."""

import base64
import re
from collections.abc import Iterator

import numpy as np
import torch

from piu_lora.identity import centroid

__all__ = ["EmbeddingSearch"]

_RUN = 4  # consecutive values that are looked for
_STRIDE = 16  # values from one run to the next
_KEY = 8  # first bytes of a run by which it is looked up
_NUMBER = re.compile(rb"-?(?:\d+\.\d*|\.\d+|\d+(?=[eE]))(?:[eE][-+]?\d{1,3})?")
# Four decimals, or those of a half-precision number.
_ROUNDED, _RELATIVE = 6e-5, 5e-4


class EmbeddingSearch:
    """Looks for a few consecutive values of any embedding of a person, or of their centroid.

    Args:
        embeddings: (n, d) float.
    """

    def __init__(self, embeddings: torch.Tensor) -> None:
        rows = torch.cat([embeddings.float(), centroid(embeddings)[None]])
        self._runs = [run for row in rows for run in _runs(row)]
        self._stored: dict[int, set[bytes]] = {}
        for form in {form for run in self._runs for form in _stored_forms(run)}:
            self._stored.setdefault(int.from_bytes(form[:_KEY], "little"), set()).add(form)
        self._keys = np.array(sorted(self._stored), dtype="<u8")
        # Says at once of nearly every place of a file that nothing begins there.
        self._low = np.zeros(1 << 16, dtype=bool)
        self._low[(self._keys & np.uint64(0xFFFF)).astype(np.int64)] = True

    def __call__(self, piece: bytes) -> int | None:
        """The offset of the first run in ``piece``."""
        offsets = [*self._in_bytes(piece), *self._in_decimals(piece)]
        return min(offsets, default=None)

    def _in_bytes(self, piece: bytes) -> Iterator[int]:
        for shift in range(min(_KEY, max(len(piece) - _KEY + 1, 0))):
            count = (len(piece) - shift) // _KEY
            words = np.frombuffer(piece, "<u8", count, shift)
            likely = self._low[np.frombuffer(piece, "<u2", count * _KEY // 2, shift)[:: _KEY // 2]].nonzero()[
                0
            ]
            for index in likely[np.isin(words[likely], self._keys)].tolist():
                start = shift + index * _KEY
                if any(piece.startswith(form, start) for form in self._stored[int(words[index])]):
                    yield start

    def _in_decimals(self, piece: bytes) -> Iterator[int]:
        numbers = list(_NUMBER.finditer(piece))
        if len(numbers) < _RUN or not self._runs:
            return
        values = np.array([float(number.group()) for number in numbers])
        order = np.argsort(values[: 1 - _RUN], kind="stable")
        ascending = values[order]
        for run in self._runs:
            needle = run.double().numpy()
            slack = _ROUNDED + _RELATIVE * np.abs(needle)
            low, high = np.searchsorted(ascending, [needle[0] - slack[0], needle[0] + slack[0]])
            first = order[low:high]
            near = np.abs(values[first[:, None] + np.arange(_RUN)] - needle) <= slack
            yield from (numbers[index].start() for index in first[near.all(axis=1)].tolist())


def _runs(row: torch.Tensor) -> Iterator[torch.Tensor]:
    """Runs from all over the row, apart from those that could be anything, such as zeros."""
    last = max(len(row) - _RUN, 0)
    for start in sorted({*range(0, last, _STRIDE), last}):
        run = row[start : start + _RUN]
        if len(run) == _RUN and len(set(run[run != 0].tolist())) >= _RUN - 1:
            yield run


def _stored_forms(run: torch.Tensor) -> Iterator[bytes]:
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        raw = run.to(dtype).view(torch.uint8).numpy().tobytes()
        yield raw
        yield raw.hex().encode()
        yield raw.hex().upper().encode()
        for middle in _base64(raw):
            yield middle
            yield middle.translate(bytes.maketrans(b"+/", b"-_"))


def _base64(raw: bytes) -> Iterator[bytes]:
    """The characters of its base64 form that depend on nothing beside it, at each of the three alignments."""
    for shift in range(3):
        encoded = base64.b64encode(b"\x00" * shift + raw)
        yield encoded[-(-8 * shift // 6) : 8 * (shift + len(raw)) // 6]
