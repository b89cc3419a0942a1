"""The next version of a release: made, measured, and taken or kept aside."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from piu_lora.adapter import Adapter, Ledger, read_adapter, weights_digest
from piu_lora.config import ForgetConfig
from piu_lora.errors import BadInput
from piu_lora.evidence import Policy
from piu_lora.evidence.report import Report, read_report
from piu_lora.jobs.evaluation.evaluate import Judges, evaluate
from piu_lora.jobs.evaluation.report import REPORT_FILE
from piu_lora.jobs.forget import forget
from piu_lora.jobs.releases.acceptance import DEFAULT_POLICY, checks_of, intact_check
from piu_lora.jobs.releases.manifest import CheckRecord, RequestRecord, VersionRecord, now
from piu_lora.jobs.releases.release import Release
from piu_lora.jobs.releases.requests import lapse_requests
from piu_lora.jobs.request.request import Identities
from piu_lora.jobs.request.session import Session
from piu_lora.jobs.stacks.members import open_members
from piu_lora.jobs.stacks.merge import merge_adapters
from piu_lora.progress import Progress, silent
from piu_lora.unlearn.gate.neurons import taken_gates
from piu_lora.writing import make_folder

__all__ = ["Applied", "apply_requests"]

_WORSE = 0.02


@dataclass(frozen=True)
class Applied:
    """What ``apply`` did.

    Attributes:
        version: that was made; None where there was nothing to do.
        lapsed: requests whose time was over.
    """

    version: VersionRecord | None
    lapsed: tuple[RequestRecord, ...] = ()


@dataclass(frozen=True)
class _Terms:
    """By what a version is judged."""

    policy: Policy
    worse: float
    judges: Judges
    settings: tuple[str, ...]


def apply_requests(
    release: Release,
    *,
    policy: Policy = DEFAULT_POLICY,
    worse: float = _WORSE,
    judges: Judges = Judges(),  # noqa: B008
    settings: Sequence[str] = (),
    anew: bool = False,
    ledger: Ledger | None = None,
    device: str = "auto",
    progress: Progress = silent,
) -> Applied:
    """Make the next version: with everybody who is pending, without those who leave.

    It stands only if its checks pass; otherwise it is kept aside with its report, the version before stays
    current, and the requests stay as they are. A run that was killed goes on when it is repeated.

    Args:
        policy: what an evaluation must show.
        worse: by how much the likeness of others may fall from one version to the next.
        judges: further recognizers, as for ``evaluate``.
        settings: ``evaluation.key=value`` and ``report.key=value`` pairs, as for ``evaluate``.
        anew: solve for those who are pending once more, although their adapters are made.
        ledger: takes the adapters of accepted versions.

    Raises:
        BadInput: no neurons are left; a base that has changed.
    """
    with release.claimed(ledger):
        lapsed = tuple(lapse_requests(release))
        if not release.manifest.in_state("pending", "leaving"):
            return Applied(None, lapsed)
        if anew:
            for request in release.manifest.in_state("pending"):
                shutil.rmtree(release.member_folder(request), ignore_errors=True)
        terms = _Terms(policy, worse, judges, tuple(settings))
        requests = release.manifest.in_state("active", "pending")
        if not requests:
            version = _empty_version(release)
        else:
            session = release.session(device, progress)
            release.require_base(session.reference)
            version = _make_version(release, session, requests, terms)
        _take(release, version, ledger)
    return Applied(version, lapsed)


def _empty_version(release: Release) -> VersionRecord:
    return VersionRecord(
        number=release.manifest.next_number,
        state="accepted",
        made=now(),
        adapter_id="",
        weights_sha256="",
        requests=(),
        measured=0,
        checks=(),
    )


def _make_version(
    release: Release, session: Session, requests: Sequence[RequestRecord], terms: _Terms
) -> VersionRecord:
    members: list[Adapter] = []
    if release.additive:
        members = _solve_members(release, session, requests)
        merge_adapters(open_members(members), release.candidate, force=True)
    else:
        identities: list[str | Path] = [release.identity(request) for request in requests]
        _forgotten(release, session, identities, release.candidate, release.config)
    candidate = read_adapter(release.candidate)
    checks: list[CheckRecord] = [intact_check(candidate, members)] if members else []
    known = [identity for request in requests if (identity := release.identity(request))]
    number = release.manifest.next_number
    if known:
        report = _evaluated(release, session, known, number, terms)
        checks += checks_of(report, _earlier_report(release), terms.worse)
    return VersionRecord(
        number=number,
        state="accepted" if all(check.passed for check in checks) else "failed",
        made=now(),
        adapter_id=candidate.id,
        weights_sha256=weights_digest(candidate),
        requests=tuple(request.id for request in requests),
        measured=len(known),
        checks=tuple(checks),
    )


def _solve_members(release: Release, session: Session, requests: Sequence[RequestRecord]) -> list[Adapter]:
    """The adapters of all requests; those that are not made yet take neurons that nobody has."""
    members = {request.id: release.member(request) for request in requests}
    leaving = [release.member(request) for request in release.manifest.in_state("leaving")]
    occupied = set(
        taken_gates(member.receipt.solution for member in (*members.values(), *leaving) if member is not None)
    )
    make_folder(release.path / "members", 0o700)
    config = release.config
    reserved = config.to_dict().get("gate", {}).get("occupied", ())
    for request in requests:
        if members[request.id] is not None:
            continue
        identity = release.identity(request)
        if not identity:
            raise BadInput(
                f"request {request.id} has no adapter, and it is not known whose it is; withdraw it, and add "
                "the person again"
            )
        member_config = config.updated({"gate": {"occupied": sorted({*reserved, *occupied})}})
        member = _forgotten(release, session, identity, release.member_folder(request), member_config)
        members[request.id] = member
        occupied |= set(member.receipt.solution.get("gates", ()))
    return [member for member in members.values() if member is not None]


def _forgotten(
    release: Release, session: Session, identity: Identities, out: Path, config: ForgetConfig
) -> Adapter:
    """An adapter on the base of the session, not evaluated: the whole version is."""
    result = forget(
        identity,
        session.pipe,
        out,
        bank=session.bank,
        pack=release.manifest.pack or None,
        config=config,
        evaluate=False,
        force=True,
        progress=session.progress,
    )
    return read_adapter(result.path)


def _evaluated(
    release: Release, session: Session, known: Sequence[str], number: int, terms: _Terms
) -> Report:
    """The version's evaluation, on everybody of whom it is known who they are."""
    folder = release.report_folder(number)
    make_folder(folder.parent, 0o700)
    return evaluate(
        release.candidate,
        list(known),
        session.pipe,
        folder,
        bank=session.bank,
        pack=release.manifest.pack or None,
        judges=terms.judges,
        settings=terms.settings,
        policy=terms.policy,
        force=True,
        progress=session.progress,
    ).report


def _earlier_report(release: Release) -> Report | None:
    path = release.report_folder(release.manifest.current) / REPORT_FILE
    return read_report(path) if path.is_file() else None


def _take(release: Release, version: VersionRecord, ledger: Ledger | None) -> None:
    """Enter the version in the manifest, which decides; folders, link and ledger follow it."""
    manifest = release.manifest
    versions = (*manifest.versions, version)
    if version.state == "failed":
        release.save(manifest.changed(versions=versions))
    else:
        active = [_taken(release, request) for request in manifest.in_state("pending")]
        gone = [request.model_copy(update={"state": "withdrawn"}) for request in manifest.in_state("leaving")]
        current = version.number if version.adapter_id else 0
        release.save(manifest.changed(*active, *gone, versions=versions, current=current))
    release.settle(ledger)


def _taken(release: Release, request: RequestRecord) -> RequestRecord:
    member = release.member(request)
    return request.model_copy(update={"state": "active", "adapter_id": member.id if member else ""})
