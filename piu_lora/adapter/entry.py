"""One line of the ledger."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Self

__all__ = ["Entry", "State"]

State = Literal["pending", "active", "merged", "withdrawn"]


@dataclass(frozen=True)
class Entry:
    """One adapter, as the operator knows it.

    Attributes:
        state: pending while its folder is being written; merged once another adapter stands for it; withdrawn
            when the request was.
        identity: as it was given to ``forget``: a bank id, or an absolute path; one a line for several
            people. Empty where it is not known.
        path: the adapter's folder.
        weights_sha256: of its weights file.
        created, changed: UTC, ISO 8601.
        merged_into: id of the merged adapter that stands for this one.
        members: ids, for a merged adapter.
        figures: forget and retain ISM after / before, by recognizer.
        bank_digest: of the people that the adapter leaves alone.
    """

    adapter_id: str
    state: State = "active"
    identity: str = ""
    bank: str = ""
    base: str = ""
    method: str = ""
    path: str = ""
    weights_sha256: str = ""
    created: str = ""
    changed: str = ""
    merged_into: str = ""
    members: tuple[str, ...] = ()
    figures: dict[str, Any] = field(default_factory=dict)
    note: str = ""
    bank_digest: str = ""

    @classmethod
    def of_row(cls, row: Sequence[Any]) -> Self:
        """An entry from the values of a row of the database, in the order of the fields."""
        values = dict(zip(cls.__dataclass_fields__, row, strict=True))
        lists = {"members": tuple(json.loads(values["members"])), "figures": json.loads(values["figures"])}
        return cls(**{**values, **lists})

    @staticmethod
    def joined(identities: Iterable[str]) -> str:
        """Several people as ``identity`` keeps them."""
        return "\n".join(identities)

    @property
    def identities(self) -> list[str]:
        """The people of ``identity``, one by one."""
        return self.identity.splitlines()

    def public(self) -> dict[str, Any]:
        """Everything that says nothing about the person: no identity, no path, no note, no bank."""
        left_out = ("identity", "bank", "bank_digest", "path", "note")
        return {name: value for name, value in vars(self).items() if name not in left_out}
