"""release.json: the requests and versions of a release. It names nobody."""

import json
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator

from piu_lora.adapter import write_file
from piu_lora.documents import Count, Document, Many, Number, Word, from_json, parsed
from piu_lora.errors import BadInput
from piu_lora.foreign import read_text

__all__ = ["MANIFEST_FILE", "CheckRecord", "Keep", "Manifest", "RequestRecord", "VersionRecord", "now"]

MANIFEST_FILE = "release.json"
Keep = Literal["embeddings", "nothing"]
FORMAT: Literal["piu_lora.release/1"] = "piu_lora.release/1"


def now() -> str:
    """UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _day(text: str) -> str:
    if text:
        date.fromisoformat(text)
    return text


class RequestRecord(Document):
    """One request to be forgotten; who made it stands in a private file, if anywhere.

    Attributes:
        state: pending until a version with it is accepted; leaving from its withdrawal until a version
            without it is.
        until: the day after whose beginning it lapses, ISO 8601; empty for never.
        adapter_id: of the adapter for this person alone, once it is made.
    """

    id: Word
    state: Literal["pending", "active", "leaving", "withdrawn"]
    added: Word
    until: Annotated[str, AfterValidator(_day)] = ""
    adapter_id: str = ""

    def lapsed(self, today: date) -> bool:
        """Whether its time is over."""
        return bool(self.until) and self.until <= today.isoformat()


class CheckRecord(Document):
    """A line of a version's acceptance: a figure, what was asked of it, and what the version before had."""

    name: Word
    text: Word
    value: Number | None
    limit: Number
    relation: Literal["<=", ">="]
    passed: bool
    before: Number | None = None


class VersionRecord(Document):
    """One version of the release.

    Attributes:
        state: whether its checks passed; a failed one is kept aside, and the one before stays current.
        adapter_id: empty where nobody is left.
        requests: ids of those whom it forgets.
        measured: of how many of them images were generated; of the others it is not known who they are.
    """

    number: Count
    state: Literal["accepted", "failed"]
    made: Word
    adapter_id: str
    weights_sha256: str
    requests: Annotated[tuple[Word, ...], Many]
    measured: Count
    checks: Annotated[tuple[CheckRecord, ...], Many]

    @property
    def missed(self) -> tuple[CheckRecord, ...]:
        """The checks that did not pass."""
        return tuple(check for check in self.checks if not check.passed)


class Manifest(Document):
    """Everything that a release knows, except who was forgotten.

    Attributes:
        base, bank, pack: as for ``forget``; ``bank`` and ``pack`` may be empty.
        settings: of every adapter, without ``gate.occupied``, which each version finds anew.
        keep: what stays of a person once an accepted version forgets them.
        current: number of the accepted version that stands; 0 before the first, and where nobody is left.
    """

    format: Literal["piu_lora.release/1"] = FORMAT
    created: Word
    base: Word
    bank: str
    pack: str
    settings: dict[str, Any]
    keep: Keep
    current: Count = 0
    requests: Annotated[tuple[RequestRecord, ...], Many] = ()
    versions: Annotated[tuple[VersionRecord, ...], Many] = ()

    def request(self, beginning: str) -> RequestRecord:
        """The request of that id, or of an unambiguous beginning of it.

        Raises:
            BadInput: there is none, or several.
        """
        matching = [request for request in self.requests if request.id.startswith(beginning)]
        if not beginning or len(matching) != 1:
            fault = (
                f"{len(matching)} requests begin with" if matching and beginning else "there is no request"
            )
            raise BadInput(f"{fault} {beginning!r}; `piu-lora release status` lists their ids")
        return matching[0]

    def in_state(self, *states: str) -> list[RequestRecord]:
        """The requests in one of these states, the oldest first."""
        return [request for request in self.requests if request.state in states]

    def version(self, number: int) -> VersionRecord | None:
        """The version of that number."""
        return next((version for version in self.versions if version.number == number), None)

    @property
    def next_number(self) -> int:
        """Of the version to come; numbers of failed ones are used up."""
        return max((version.number for version in self.versions), default=0) + 1

    def changed(self, *requests: RequestRecord, **values: Any) -> Self:
        """This manifest with other requests in the place of those of the same ids, and other values."""
        by_id = {request.id: request for request in requests}
        listed = [by_id.pop(request.id, request) for request in self.requests]
        return self.model_copy(update={"requests": (*listed, *by_id.values()), **values})

    def save(self, folder: Path) -> None:
        """Write it whole; only the owner may read when who was forgotten."""
        text = json.dumps(self.model_dump(mode="json"), indent=2) + "\n"
        write_file(folder / MANIFEST_FILE, text.encode(), mode=0o600)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read it back.

        Raises:
            BadInput: no release there, or damaged.
        """
        path = folder / MANIFEST_FILE
        try:
            values = from_json(read_text(path))
        except FileNotFoundError as error:
            raise BadInput(
                f"{str(folder)!r} is no release: it has no {MANIFEST_FILE}; `piu-lora release init` makes one"
            ) from error
        except BadInput:
            raise
        except (OSError, ValueError) as error:
            raise BadInput(f"cannot read {str(path)!r}: {error}; restore a backup") from error
        return parsed(cls, values, str(path))
