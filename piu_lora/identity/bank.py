"""An identity bank: the embeddings of many people in one safetensors file.

Tensors: ``embeddings`` (n, d) fp16 or fp32, ``labels`` (n,) int32 in ascending order, ``ids`` uint8
    (newline-joined UTF-8, one id a label), and where its geometry was measured ``within`` (r, d), the factors
    of the covariance within people.
Header: format, recognizer name and digest, the settings the embeddings were made with, and the geometry.
"""

import difflib
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import safetensors
import torch

from piu_lora.errors import BadInput, Incompatible
from piu_lora.foreign import require_regular
from piu_lora.identity.bank_header import FORMAT, BankHeader, geometry_facts
from piu_lora.identity.embedding import normalize
from piu_lora.identity.geometry import Geometry
from piu_lora.tensors import pointer_advice, save_tensors
from piu_lora.writing import PRIVATE, replacing

__all__ = ["FORMAT", "BankRows", "IdentityBank", "RecognizerId"]

_BLOCK = 8192  # rows read at once
_CACHED = 2048  # rows whose float32 copy stays in the processor's cache


@dataclass(frozen=True)
class RecognizerId:
    """Which recognizer made an embedding; embeddings of different recognizers never meet."""

    name: str
    sha256: str

    def __str__(self) -> str:
        return f"{self.name!r} ({self.sha256[:12] or 'digest unknown'})"

    def require(self, other: "RecognizerId", name: str, other_name: str) -> None:
        """Raise ``Incompatible`` unless both are the same recognizer; where a digest is unknown, the file
        names decide.
        """
        equal = self.sha256 == other.sha256 if self.sha256 and other.sha256 else self.name == other.name
        if not equal:
            raise Incompatible(
                f"{name} uses recognizer {self}, but {other_name} uses {other}; "
                "build the bank again with the recognizer of the base"
            )


@dataclass(frozen=True)
class BankRows:
    """Some rows of a bank's embeddings, by index: ``rows[index]`` reads and normalises just those.

    Attributes:
        embeddings: (n, d), possibly memory-mapped.
        places: (m,) rows that belong to it.
    """

    embeddings: torch.Tensor
    places: torch.Tensor

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: torch.Tensor) -> torch.Tensor:
        """(k, d) float32 unit rows for (k,) indices below ``len(self)``."""
        return normalize(self.embeddings[self.places[index]])


@dataclass(eq=False)
class IdentityBank:
    """Embeddings grouped by identity.

    Attributes:
        embeddings: (n, d) unit-norm rows, memory-mapped when loaded from a file.
        labels: (n,) index into ``ids``, ascending.
        ids: the identities' stable string ids.
        recognizer: what made the embeddings.
        settings: how (detector size and the like).
        geometry: of the recognizer, measured when the bank was made; None where it was not. No part of the
            digest.
    """

    embeddings: torch.Tensor
    labels: torch.Tensor
    ids: list[str]
    recognizer: RecognizerId
    settings: dict[str, Any] = field(default_factory=dict)
    geometry: Geometry | None = None

    def __post_init__(self) -> None:
        if self.embeddings.ndim != 2 or len(self.embeddings) == 0:
            raise BadInput(
                f"bank embeddings have shape {tuple(self.embeddings.shape)}; expected (n, d) with n >= 1"
            )
        if self.labels.shape != (len(self.embeddings),):
            raise BadInput(
                f"bank labels have shape {tuple(self.labels.shape)}; "
                f"expected one label for each of {len(self.embeddings)} embeddings"
            )
        if (
            self.labels.is_floating_point()
            or int(self.labels.min()) < 0
            or int(self.labels.max()) >= len(self.ids)
        ):
            raise BadInput(
                f"bank labels must be whole numbers from 0 to {len(self.ids) - 1}, one for each id"
            )
        unusable = [identity for identity in self.ids if not identity or "\n" in identity]
        if unusable:
            raise BadInput(f"bank id {unusable[0]!r} is empty or holds a line break; rename it")
        repeated = [
            identity
            for identity, again in zip(sorted(self.ids), sorted(self.ids)[1:], strict=False)
            if identity == again
        ]
        if repeated:
            raise BadInput(f"bank id {repeated[0]!r} stands for two identities; give every identity one id")
        counts = torch.bincount(self.labels.long(), minlength=len(self.ids))
        if len(counts) != len(self.ids) or (counts == 0).any() or (self.labels.diff() < 0).any():
            raise BadInput(
                f"bank labels must run 0..{len(self.ids) - 1} in ascending order, each at least once"
            )
        self._check_rows()

    def _check_rows(self) -> None:
        for rows in self._blocks():
            # A norm is finite and positive exactly when the row has a direction; cheaper than normalising a
            # large bank.
            norms = torch.linalg.vector_norm(self.embeddings[rows].float(), dim=1)
            bad = (~(norms.isfinite() & (norms >= 1e-6))).nonzero()
            if len(bad):
                row = rows.start + int(bad[0])
                fault = "is a zero vector" if float(norms[bad[0]]) < 1e-6 else "holds NaN or infinity"
                raise BadInput(
                    f"bank is damaged: embedding {row} (identity {self.ids[int(self.labels[row])]!r}) "
                    f"{fault}; build it again"
                )

    def _blocks(self) -> Iterator[slice]:
        """Consecutive rows, a few megabytes at a time."""
        return (slice(start, start + _BLOCK) for start in range(0, len(self.embeddings), _BLOCK))

    @cached_property
    def _starts(self) -> torch.Tensor:
        """First row of every identity, and the end: (len(ids) + 1,)."""
        counts = torch.bincount(self.labels.long(), minlength=len(self.ids))
        return torch.nn.functional.pad(counts.cumsum(0), (1, 0))

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {identity: row for row, identity in enumerate(self.ids)}

    @property
    def width(self) -> int:
        """Length d of an embedding."""
        return int(self.embeddings.shape[1])

    def __len__(self) -> int:
        return len(self.ids)

    def __contains__(self, identity: object) -> bool:
        return identity in self._rows

    def index(self, identity: str) -> int:
        """Row of ``identity`` in ``ids`` and ``centroids``.

        Raises:
            BadInput: no such id; the message suggests the closest ones.
        """
        if identity not in self._rows:
            close = difflib.get_close_matches(identity, self.ids, n=3, cutoff=0.4)
            hint = (
                f"did you mean {', '.join(close)}?"
                if close
                else f"the bank holds {len(self)} identities, the first is {self.ids[0]!r}"
            )
            raise BadInput(f"identity {identity!r} is neither a file nor an id of the bank: {hint}")
        return self._rows[identity]

    def of(self, identity: str) -> torch.Tensor:
        """All embeddings of one identity, (k, d) float32 unit rows."""
        row = self.index(identity)
        return normalize(self.embeddings[self._starts[row] : self._starts[row + 1]])

    def centroid(self, row: int) -> torch.Tensor:
        """Normalised mean embedding of the identity in ``row``, (d,) float32."""
        return normalize(
            normalize(self.embeddings[self._starts[row] : self._starts[row + 1]]).mean(dim=0, keepdim=True)
        )[0]

    @cached_property
    def centroids(self) -> torch.Tensor:
        """Normalised mean embedding of every identity, (len(ids), d) float32, in the order of ``ids``."""
        sums = torch.zeros(len(self.ids), self.width)
        for rows in self._blocks():
            sums.index_add_(0, self.labels[rows].long(), normalize(self.embeddings[rows]))
        return normalize(sums)

    def cosines(self, vector: torch.Tensor) -> torch.Tensor:
        """Cosine of ``vector``, (d,) and of unit length, to every identity's centroid: (len(ids),) float32.

        Reads the embeddings once, block by block, and keeps no copy of them: a bank of a million people stays
        where it is.
        """
        starts = self._starts
        result = torch.empty(len(self.ids))
        # Whole identities, a block that stays in the processor's cache; one scratch for all of them.
        largest = int(starts.diff().max())
        scratch = torch.empty(_CACHED + largest, self.width)
        first = 0
        while first < len(self.ids):
            last = int(torch.searchsorted(starts, starts[first] + _CACHED + largest, right=True)) - 1
            result[first:last] = self._block_cosines(starts[first : last + 1], vector, scratch)
            first = last
        return result

    def _block_cosines(
        self, starts: torch.Tensor, vector: torch.Tensor, scratch: torch.Tensor
    ) -> torch.Tensor:
        first, last = int(starts[0]), int(starts[-1])
        rows = scratch[: last - first].copy_(self.embeddings[first:last])
        if last - first > len(starts) - 1:
            rows /= torch.linalg.vector_norm(rows, dim=1, keepdim=True)
            labels = torch.arange(len(starts) - 1).repeat_interleave(starts.diff())
            rows = torch.zeros(len(starts) - 1, self.width).index_add_(0, labels, rows)
        return torch.div(rows @ vector, torch.linalg.vector_norm(rows, dim=1))

    def rows_of(self, identities: Sequence[int]) -> "BankRows":
        """The embeddings of several identities (rows of ``ids``), read only where they are asked for."""
        chosen = torch.zeros(len(self.ids), dtype=torch.bool)
        chosen[list(identities)] = True
        return BankRows(self.embeddings, chosen[self.labels.long()].nonzero()[:, 0])

    @cached_property
    def digest(self) -> str:
        """SHA-256 of embeddings, labels, ids and recognizer: equal banks have equal digests, whatever file
        they came from.
        """
        digest = hashlib.sha256("\n".join([*self.ids, self.recognizer.sha256]).encode())
        digest.update(self.labels.to(torch.int32).numpy().tobytes())
        for rows in self._blocks():
            digest.update(self.embeddings[rows].contiguous().numpy().tobytes())
        return digest.hexdigest()

    def save(self, path: Path | str) -> None:
        """Write the bank to one safetensors file, for its owner alone: embeddings are biometric."""
        path = Path(path)
        tensors = {
            "embeddings": self.embeddings.contiguous(),
            "labels": self.labels.to(torch.int32).contiguous(),
            "ids": torch.frombuffer(bytearray("\n".join(self.ids).encode()), dtype=torch.uint8),
        }
        if self.geometry is not None and self.geometry.within is not None:
            tensors["within"] = self.geometry.within.factors.contiguous()
        header = BankHeader(
            recognizer=self.recognizer.name,
            recognizer_sha256=self.recognizer.sha256,
            settings=self.settings,
            geometry=geometry_facts(self.geometry),
        )
        with replacing(path, mode=PRIVATE) as temporary:
            save_tensors(tensors, temporary, header.to_strings())

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """Read a bank; the embeddings stay memory-mapped.

        Raises:
            BadInput: missing, truncated or foreign file, NaN, zero vectors, duplicated ids.
        """
        try:
            with safetensors.safe_open(str(require_regular(Path(path))), framework="pt") as file:
                header = file.metadata() or {}
                missing = {"embeddings", "labels", "ids"} - set(file.keys())
                if header.get("format") != FORMAT or missing:
                    raise BadInput(
                        f"{str(path)!r} is not an identity bank: format {header.get('format')!r}, "
                        f"missing tensors {sorted(missing)}; "
                        f"expected {FORMAT!r}"
                    )
                names = {"embeddings", "labels", "ids", "within"} & set(file.keys())
                tensors = {name: file.get_tensor(name) for name in names}
            ids = tensors["ids"].numpy().tobytes().decode().split("\n")
        except (OSError, safetensors.SafetensorError, UnicodeDecodeError) as error:
            cause = pointer_advice(Path(path)) or f"{error}; build it again or download it"
            raise BadInput(f"cannot read the bank {str(path)!r}: {cause}") from error
        facts = BankHeader.read(header, str(path))
        recognizer = RecognizerId(facts.recognizer, facts.recognizer_sha256)
        geometry = facts.measured(tensors.get("within"), tensors["embeddings"].shape[1], str(path))
        return cls(tensors["embeddings"], tensors["labels"], ids, recognizer, facts.settings, geometry)
