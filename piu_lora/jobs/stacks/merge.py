"""One adapter out of several, and a merged one without one of its members."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypedDict, Unpack

from pydantic import Field, field_validator

from piu_lora.adapter import (
    Adapter,
    Entry,
    LayerError,
    Ledger,
    OutputFolder,
    Receipt,
    adapters_disabled,
    compress_change,
    compression_facts,
    find_merge,
    library_versions,
    load_adapter,
    open_adapter,
    require_base,
    unload,
    weights_digest,
    write_adapter,
)
from piu_lora.adapter.records import MemberRecord
from piu_lora.errors import BadInput
from piu_lora.evidence import measure_probe, probe_facts
from piu_lora.identity import IdentityBank
from piu_lora.jobs.ledger import folders_of, registered
from piu_lora.jobs.request.request import bank_for
from piu_lora.jobs.request.session import Base, Session
from piu_lora.jobs.stacks.layer_statistics import RefitConfig, measure_second_moments
from piu_lora.jobs.stacks.members import (
    StackMember,
    known_identities,
    require_distinct,
    require_one_base,
    with_people,
)
from piu_lora.model import DTYPES, Precision
from piu_lora.settings import Settings

__all__ = ["MergeSettings", "Merged", "merge_adapters", "remaining_members", "settings_of", "withdraw_member"]


class MergeSettings(Settings):
    """How to merge."""

    method: str = Field(
        "sum", description="sum: exact, needs no base; refit: needs base, bank and the members' people"
    )
    rank: int = Field(0, ge=0, description="highest rank of a recompressed layer; 0 sets no limit")
    tolerance: float = Field(
        0.0, ge=0, lt=1, description="singular values below this share of a layer's largest are dropped"
    )
    dtype: Precision = Field("fp32", description="precision of the stored factors")
    refit: RefitConfig = Field(default_factory=RefitConfig, description="how refit samples and weighs")

    @field_validator("method")
    @classmethod
    def _known(cls, name: str) -> str:
        return find_merge(name).name

    def to_dict(self) -> dict[str, Any]:
        """For the receipt; the settings of ``refit`` only where they were used."""
        values = super().to_dict()
        if not find_merge(self.method).needs_second_moments:
            del values["refit"]
        return values


@dataclass(frozen=True)
class Merged:
    """A merged adapter.

    Attributes:
        errors: by layer, what compression and storage lost.
    """

    path: Path
    receipt: Receipt
    errors: dict[str, LayerError]

    @property
    def worst(self) -> float:
        """The largest relative spectral error of a layer."""
        return max(error.relative for error in self.errors.values())


def merge_adapters(
    members: Sequence[StackMember],
    out: str | Path,
    settings: MergeSettings | None = None,
    *,
    base: Base | None = None,
    bank: IdentityBank | str | Path | None = None,
    pack: str | Path | None = None,
    identities: Sequence[str] = (),
    device: str = "auto",
    force: bool = False,
    ledger: Ledger | None = None,
    instead_of: str = "",
    withdrawn: str = "",
) -> Merged:
    """Make one adapter of several.

    Args:
        members: the adapters with their weights.
        out: the adapter folder to create.
        base, bank, pack: only for ``refit``; a pipeline is given back as it was.
        identities: only for ``refit``: whom each member forgets, as for ``with_people``; where the members
            do not carry their people, from the ledger by default.
        ledger: the members are marked as merged in it.
        instead_of, withdrawn: ids of the merged adapter that this one replaces, and of the member that left.

    Raises:
        BadInput: no adapters, unknown people, nothing to write because every weight is 0.
        Incompatible: the adapters belong to different bases, or to another one than ``base``.
    """
    settings = settings or MergeSettings()
    require_distinct(members)
    require_one_base(members)
    if not any(member.weight for member in members):
        raise BadInput(
            "every weight is 0, so the merged adapter would be empty; give one of them another weight"
        )
    refit = find_merge(settings.method).needs_second_moments
    if refit and base is not None and (identities or all(member.embeddings is None for member in members)):
        names = known_identities(members, identities, ledger)
        members = with_people(members, names, base, bank, pack, device)
    with OutputFolder(out, force=force).claimed() as output:
        session = _session(members, settings, base, bank, device)
        moments = None if session is None else measure_second_moments(session, members, settings.refit)
        exact = find_merge(settings.method).combine(
            [m.adapter.change for m in members], [m.weight for m in members], moments
        )
        dtype = DTYPES[settings.dtype]
        stored, errors = compress_change(
            exact, rank=settings.rank or None, tolerance=settings.tolerance, dtype=dtype
        )
        receipt = _receipt(members, settings, errors)

        def enter(entry: Entry) -> Entry:
            return ledger.record_merge(entry, instead_of=instead_of, withdrawn=withdrawn) if ledger else entry

        with registered(ledger, receipt, output.path, confirm=enter) as confirm, output.staged() as folder:
            if session is not None:
                receipt = replace(receipt, probe=_probe(session, Adapter(folder, receipt, stored)))
            zeros = {name: zero for member in members for name, zero in member.adapter.zeros.items()}
            receipt = write_adapter(folder, {**zeros, **stored}, receipt, dtype)
            confirm(receipt)
    return Merged(output.path, receipt, errors)


def _session(
    members: Sequence[StackMember],
    settings: MergeSettings,
    base: Base | None,
    bank: IdentityBank | str | Path | None,
    device: str,
) -> Session | None:
    """Base and bank, for the methods that measure on them."""
    if not find_merge(settings.method).needs_second_moments:
        return None
    if base is None:
        raise BadInput(f"the merge method {settings.method!r} measures on the base; pass base=BASE")
    session = Session(base, bank_for(base, bank), device=device)
    for member in members:
        require_base(session.pipe, member.adapter)
    return session


def _probe(session: Session, merged: Adapter) -> dict[str, Any]:
    pipe = session.pipe
    name = load_adapter(pipe, merged)
    try:
        return probe_facts(measure_probe(pipe, lambda: adapters_disabled(pipe)))
    finally:
        unload(pipe, [name])


def _receipt(
    members: Sequence[StackMember], settings: MergeSettings, errors: dict[str, LayerError]
) -> Receipt:
    first = members[0].adapter.receipt.base
    encoder = next(
        (
            m.adapter.receipt.base.text_encoder_sha256
            for m in members
            if m.adapter.receipt.base.text_encoder_sha256
        ),
        "",
    )
    listed: list[MemberRecord] = [
        {"adapter_id": m.adapter.id, "weight": m.weight, "weights_sha256": weights_digest(m.adapter)}
        for m in members
    ]
    return Receipt(
        replace(first, text_encoder_sha256=encoder),
        settings.method,
        settings.to_dict(),
        counts={"members": len(members)},
        evaluation={"compression": compression_facts(errors)},
        versions=library_versions(),
        members=listed,
    ).for_people(sum(m.adapter.receipt.people for m in members if m.weight))


def settings_of(merged: Adapter) -> MergeSettings:
    """The settings by which an adapter was merged.

    Raises:
        BadInput: it is no merged one.
    """
    values = dict(merged.receipt.settings)
    if not merged.receipt.members or "method" not in values:
        raise BadInput(f"adapter {merged.id} was not merged from others; nobody can be taken out of it")
    try:
        return MergeSettings().updated(values)
    except BadInput as error:
        raise BadInput(
            f"the receipt of adapter {merged.id} holds settings of another version: {error}"
        ) from error


def remaining_members(merged: Adapter, leaving: str, available: Sequence[Adapter]) -> list[StackMember]:
    """The members of a merged adapter but one, with their weights, ready to be merged anew.

    Args:
        leaving: id of the member that goes.
        available: the members' own adapters, in any order.

    Raises:
        BadInput: it is no member, or a remaining one is not at hand or is not what was merged.
    """
    records = {str(member["adapter_id"]): member for member in merged.receipt.members}
    if leaving not in records:
        raise BadInput(
            f"adapter {leaving!r} is no member of {merged.id}; its members: {', '.join(records) or 'none'}"
        )
    adapters = {adapter.id: adapter for adapter in available}
    members = []
    for name, member in records.items():
        if name == leaving:
            continue
        if name not in adapters:
            raise BadInput(f"member {name} of {merged.id} is not at hand; pass its folder as member=DIR")
        if weights_digest(adapters[name]) != member.get("weights_sha256"):
            raise BadInput(
                f"{str(adapters[name].path)!r} is not what was merged into {merged.id}: "
                "its weights differ; pass the original"
            )
        members.append(StackMember(adapters[name], float(member["weight"])))
    if not members:
        raise BadInput(f"{leaving!r} is the only member of {merged.id}; delete the merged adapter instead")
    return members


class MergeKeywords(TypedDict, total=False):
    """The keywords of ``merge_adapters`` that ``withdraw_member`` hands on."""

    base: Base
    bank: IdentityBank | str | Path | None
    pack: str | Path | None
    identities: Sequence[str]
    device: str
    force: bool
    ledger: Ledger | None


def withdraw_member(
    merged: str | Path | Adapter,
    leaving: str,
    out: str | Path,
    available: Sequence[str | Path] = (),
    **keywords: Unpack[MergeKeywords],
) -> Merged:
    """Merge the members of a merged adapter anew without one of them, as they were merged before.

    Args:
        merged: the merged adapter's folder, or its Hub id.
        leaving: id of the member that goes.
        out: the adapter folder to create.
        available: folders or Hub ids of the members that stay; from the ledger by default.
        keywords: as for ``merge_adapters``; of identities, those of the members that stay.

    Raises:
        BadInput: ``merged`` was not merged from others, ``leaving`` is none of them, or one is not at hand.
    """
    combined = open_adapter(merged)
    settings = settings_of(combined)
    folders = available or folders_of(keywords.get("ledger"), combined.receipt)
    members = remaining_members(combined, leaving, [open_adapter(folder) for folder in folders])
    return merge_adapters(members, out, settings, instead_of=combined.id, withdrawn=leaving, **keywords)
