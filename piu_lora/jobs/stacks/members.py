"""The members of a stack: which adapters, how strong, and whom each of them forgets, where that is known."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline

from piu_lora.adapter import Adapter, Ledger, check_weights, open_adapter
from piu_lora.config import ForgetConfig
from piu_lora.errors import BadInput, Incompatible
from piu_lora.identity import IdentityBank, resolve_identity
from piu_lora.jobs.ledger import identities_of
from piu_lora.jobs.request.readers import reader_for
from piu_lora.jobs.request.request import bank_for
from piu_lora.model import family_of

__all__ = ["StackMember", "open_members", "people_of", "require_distinct", "require_one_base", "with_people"]


@dataclass(frozen=True)
class StackMember:
    """One adapter of a stack, its weight, and the (n, d) embeddings of the person it forgets, where known."""

    adapter: Adapter
    weight: float = 1.0
    embeddings: torch.Tensor | None = None


def open_members(
    adapters: Sequence[Adapter | str | Path],
    weights: Sequence[float] | None = None,
    *,
    allow_negative: bool = False,
) -> list[StackMember]:
    """Read adapters from folders or the Hub.

    Raises:
        BadInput: an unreadable adapter, the same one twice, weights that do not fit.
    """
    weights = [1.0] * len(adapters) if weights is None else list(weights)
    if len(weights) != len(adapters):
        raise BadInput(f"{len(adapters)} adapters, but {len(weights)} weights; pass one for each, or none")
    check_weights(weights, allow_negative=allow_negative)
    members = [
        StackMember(open_adapter(adapter), weight) for adapter, weight in zip(adapters, weights, strict=True)
    ]
    require_distinct(members)
    return members


def with_people(
    members: Sequence[StackMember], identities: Sequence[str | Path], base: str | Path | StableDiffusionPipeline,
    bank: IdentityBank | str | Path | None = None, pack: str | Path | None = None, device: str = "auto",
) -> list[StackMember]:  # fmt: skip
    """The members with the embeddings of the people they forget.

    Args:
        identities: in the order of the members, as they were given to ``forget``; an empty one is not known.

    Raises:
        BadInput: another number of identities than members, or nobody of that name.
    """
    if len(identities) != len(members):
        raise BadInput(
            f"{len(members)} adapters, but {len(identities)} identities; pass `identity` once for each, in the same order"
        )
    known, faces = bank_for(base, bank), ForgetConfig.preset(family_of(base)).faces
    reader = reader_for(base, pack, faces, device)

    def person(identity: str | Path) -> torch.Tensor | None:
        return resolve_identity(identity, known, reader, faces.linked).embeddings if str(identity) else None

    return [
        replace(member, embeddings=person(identity))
        for member, identity in zip(members, identities, strict=True)
    ]


def people_of(
    members: Sequence[StackMember], identities: Sequence[str], ledger: Ledger | None, base: str, bank: str | Path | None,
    pack: str | Path | None, device: str,
) -> list[StackMember]:  # fmt: skip
    """The members with their people, from ``identities`` where any are given, else from the ledger as far as
    it knows.
    """
    known = identities_of(ledger, [member.adapter.id for member in members])
    # An adapter for several people is checked by the figures of its own report.
    stated = list(identities) or ["" if "\n" in each else each for each in known]
    return with_people(members, stated, base, bank, pack, device) if any(stated) else list(members)


def require_distinct(members: Sequence[StackMember]) -> None:
    """Raise ``BadInput`` where there is no adapter, or one stands there twice."""
    ids = [member.adapter.id for member in members]
    if not ids:
        raise BadInput("no adapter was given; pass the folders of one or more")
    if twice := sorted({each for each in ids if ids.count(each) > 1}):
        raise BadInput(f"adapter {twice[0]} is given twice; pass each once, and its strength as a weight")


def require_one_base(members: Sequence[StackMember]) -> None:
    """Raise ``Incompatible`` unless all adapters were made for one base."""
    first = members[0].adapter.receipt.base
    for member in members[1:]:
        other = member.adapter.receipt.base
        encoders = {first.text_encoder_sha256, other.text_encoder_sha256} - {""}
        if other.attn2_sha256 != first.attn2_sha256 or len(encoders) > 1:
            raise Incompatible(
                f"adapter {members[0].adapter.id} was made for the base {first.id!r} ({first.attn2_sha256[:12]}), {member.adapter.id} for "
                f"{other.id!r} ({other.attn2_sha256[:12]}); put adapters of one base together"
            )
