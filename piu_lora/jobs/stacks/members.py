"""The members of a stack: which adapters, how strong, and whom each of them forgets, where that is known."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from piu_lora.adapter import Adapter, Ledger, check_weights, open_adapter
from piu_lora.config import ForgetConfig
from piu_lora.errors import BadInput, Incompatible
from piu_lora.identity import IdentityBank, resolve_identity
from piu_lora.jobs.ledger import identities_of
from piu_lora.jobs.request.session import Base, open_session
from piu_lora.model import family_of

__all__ = [
    "StackMember",
    "known_identities",
    "open_members",
    "require_distinct",
    "require_one_base",
    "with_people",
]


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
    members: Sequence[StackMember],
    identities: Sequence[str | Path],
    base: Base,
    bank: IdentityBank | str | Path | None = None,
    pack: str | Path | None = None,
    device: str = "auto",
) -> list[StackMember]:
    """The members with the embeddings of the people they forget.

    Args:
        identities: in the order of the members, as they were given to ``forget``; an empty one is not known.

    Raises:
        BadInput: another number of identities than members, or nobody of that name.
    """
    if len(identities) != len(members):
        raise BadInput(
            f"{len(members)} adapters, but {len(identities)} identities; "
            "pass `identity` once for each, in the same order"
        )
    if not any(map(str, identities)):
        return [replace(member, embeddings=None) for member in members]
    faces = ForgetConfig.preset(family_of(base)).faces
    session = open_session(base, bank, pack, faces=faces, device=device)

    def embeddings_of(identity: str | Path) -> torch.Tensor | None:
        if not str(identity):
            return None
        return resolve_identity(identity, session.bank, session.reader, faces.linked).embeddings

    return [
        replace(member, embeddings=embeddings_of(identity))
        for member, identity in zip(members, identities, strict=True)
    ]


def known_identities(
    members: Sequence[StackMember], identities: Sequence[str], ledger: Ledger | None
) -> list[str]:
    """Whom each member forgets: ``identities``, or else what the ledger knows; empty where it does not."""
    if identities:
        return list(identities)
    entered = identities_of(ledger, [member.adapter.id for member in members])
    # An adapter for several people is checked by the figures of its own report.
    return ["" if "\n" in identity else identity for identity in entered]


def require_distinct(members: Sequence[StackMember]) -> None:
    """Raise ``BadInput`` where there is no adapter, or one stands there twice."""
    ids = [member.adapter.id for member in members]
    if not ids:
        raise BadInput("no adapter was given; pass the folders of one or more")
    if twice := sorted({name for name in ids if ids.count(name) > 1}):
        raise BadInput(f"adapter {twice[0]} is given twice; pass each once, and its strength as a weight")


def require_one_base(members: Sequence[StackMember]) -> None:
    """Raise ``Incompatible`` unless all adapters were made for one base."""
    first = members[0].adapter.receipt.base
    for member in members[1:]:
        other = member.adapter.receipt.base
        encoders = {first.text_encoder_sha256, other.text_encoder_sha256} - {""}
        if other.attn2_sha256 != first.attn2_sha256 or len(encoders) > 1:
            raise Incompatible(
                f"adapter {members[0].adapter.id} was made for the base {first.id!r} "
                f"({first.attn2_sha256[:12]}), {member.adapter.id} for {other.id!r} "
                f"({other.attn2_sha256[:12]}); put adapters of one base together"
            )
