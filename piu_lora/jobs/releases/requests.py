"""Requests come and go: adding people to a release, and taking them out."""

import secrets
from collections.abc import Sequence
from datetime import UTC, date, datetime

import torch

from piu_lora.adapter import Ledger
from piu_lora.errors import BadInput
from piu_lora.identity import ResolvedIdentity, centroid, resolve_identity
from piu_lora.identity.constants import value_of
from piu_lora.jobs.releases.manifest import RequestRecord, now
from piu_lora.jobs.releases.release import Release
from piu_lora.jobs.request.constants import settled
from piu_lora.jobs.request.request import Identities, each_identity
from piu_lora.jobs.request.session import Session

__all__ = ["add_requests", "lapse_requests", "today", "withdraw_request"]


def today() -> date:
    """The date, in UTC."""
    return datetime.now(UTC).date()


def add_requests(
    release: Release,
    identity: Identities,
    *,
    until: str = "",
    ledger: Ledger | None = None,
    device: str = "auto",
) -> list[RequestRecord]:
    """Add a pending request for everybody named; the next version forgets them.

    Photographs are read now, and their embeddings kept in the release, so that the photographs themselves may
    go.

    Args:
        identity: as for ``forget``.
        until: the day on which the requests lapse, ``YYYY-MM-DD``; never by default.
        ledger: of the release's adapters.

    Raises:
        BadInput: nobody of that name, unreadable photographs, somebody who is in the release already, a date
            that is over. Then no request is added at all.
    """
    with release.claimed(ledger):
        _require_to_come(until)
        session = release.session(device)
        config = release.config
        people = [
            (str(name), resolve_identity(name, session.bank, session.reader, config.faces.linked))
            for name in each_identity(identity)
        ]
        subjects = [subject for _, subject in people]
        fewest = min(len(subject.embeddings) for subject in subjects)
        split = settled(config, session.bank, fewest, ["split.same_person"]).split
        _require_new(release, session, subjects, value_of("split.same_person", split.same_person))
        requests = []
        for name, subject in people:
            request = RequestRecord(id=secrets.token_hex(4), state="pending", added=now(), until=until)
            release.keep_identity(request.id, subject, name if subject.row is not None else "")
            requests.append(request)
        release.save(release.manifest.changed(*requests))
    return requests


def _require_to_come(until: str) -> None:
    if not until:
        return
    try:
        day = date.fromisoformat(until)
    except ValueError as error:
        raise BadInput(f"until = {until!r} is no date; write it as YYYY-MM-DD") from error
    if day <= today():
        raise BadInput(f"until = {until!r} is over already; name a day to come, or leave it out")


def _require_new(
    release: Release, session: Session, subjects: Sequence[ResolvedIdentity], same_person: float
) -> None:
    """Nobody is asked for twice, neither under one id nor as the same face."""
    for request in release.manifest.in_state("pending", "active"):
        if not (identity := release.identity(request)):
            continue
        known = resolve_identity(identity, session.bank, None)
        for subject in subjects:
            same_row = known.row is not None and known.row == subject.row
            cosine = float(torch.dot(centroid(known.embeddings), centroid(subject.embeddings)))
            if same_row or cosine >= same_person:
                raise BadInput(
                    f"request {request.id} ({request.state}) is about the same person already "
                    f"(cosine {cosine:.2f}); leave them out, or withdraw that request first"
                )


def withdraw_request(release: Release, beginning: str, *, ledger: Ledger | None = None) -> RequestRecord:
    """Take a request back: a pending one at once, an active one with the next version.

    Who made a pending one is erased at once.

    Args:
        beginning: of the request's id.

    Raises:
        BadInput: no such request, or it is withdrawn already.
    """
    with release.claimed(ledger):
        request = release.manifest.request(beginning)
        if request.state in ("withdrawn", "leaving"):
            raise BadInput(f"request {request.id} is {request.state} already; nothing is left to withdraw")
        changed = _ended(request)
        release.save(release.manifest.changed(changed))
        if changed.state == "withdrawn":
            release.erase_identity(changed)
    return changed


def lapse_requests(release: Release) -> list[RequestRecord]:
    """Withdraw the requests whose time is over; the release is claimed."""
    day = today()
    lapsed = [
        _ended(request) for request in release.manifest.in_state("pending", "active") if request.lapsed(day)
    ]
    if lapsed:
        release.save(release.manifest.changed(*lapsed))
    return lapsed


def _ended(request: RequestRecord) -> RequestRecord:
    state = "withdrawn" if request.state == "pending" else "leaving"
    return request.model_copy(update={"state": state})
