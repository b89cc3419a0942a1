"""What the layers of a stack see under whose conditions: the ground that merging by refit and the
interference check stand on.
"""

from collections.abc import Iterator, Sequence

import torch
from diffusers import StableDiffusionPipeline
from pydantic import Field

from piu_lora.adapter import SecondMoments, load_adapter, unload
from piu_lora.errors import BadInput
from piu_lora.identity import IdentityBank, centroid, dirichlet_mixtures, synthetic_neighbours
from piu_lora.jobs.request.session import Session
from piu_lora.jobs.stacks.members import StackMember
from piu_lora.model import TokenSample, empty_inputs, layer_inputs, prompt_of, second_moments
from piu_lora.settings import Count, Positive, Settings

__all__ = ["RefitConfig", "bystanders", "measure_second_moments"]


class RefitConfig(Settings, section="refit"):
    """How merging by refit samples and weighs."""

    own: Count = Field(64, description="conditions of each member's person, Dirichlet mixtures")
    retained: Count = Field(512, description="people of the bank")
    neighbours: int = Field(
        64, ge=0, description="synthetic neighbours of each member's person, at cosine 0.3 to 0.7"
    )
    retain_weight: Positive = Field(3.0, description="weight of everybody else's conditions")
    ridge: Positive = Field(1e-4, description="added to the diagonal, as a share of its mean")
    seed: int = 0


def bystanders(
    bank: IdentityBank,
    people: Sequence[torch.Tensor],
    count: int,
    generator: torch.Generator,
    same: float = 0.7,
) -> list[int]:
    """Rows of up to ``count`` people of the bank, drawn without those whom the stack forgets.

    Args:
        people: (n, d) embeddings of each forgotten person.
        same: a centroid this close is the same person.
    """
    left = torch.ones(len(bank), dtype=torch.bool)
    for embeddings in people:
        left &= bank.cosines(centroid(embeddings)).reshape(-1) < same
    rows: list[int] = left.nonzero()[:, 0].tolist()
    return sorted(rows[i] for i in torch.randperm(len(rows), generator=generator)[:count].tolist())


def measure_second_moments(
    session: Session, members: Sequence[StackMember], config: RefitConfig
) -> SecondMoments:
    """Second moments of the inputs of every layer that a member changes; the session's pipeline is the bare
    base, and is given back as it was.

    Raises:
        BadInput: a member's person is not known.
    """
    pipe, bank = session.pipe, session.bank
    modules = sorted({module for member in members for module in member.adapter.change})
    generator = torch.Generator().manual_seed(config.seed)
    people = [_embeddings_of(member) for member in members]
    rows = bystanders(bank, people, config.retained, generator)
    others = torch.stack([bank.of(bank.ids[row])[0] for row in rows])
    near = [_neighbours(centroid(person), others, config.neighbours, generator) for person in people]

    def retained() -> Iterator[dict[str, torch.Tensor]]:
        yield from empty_inputs(pipe, modules, generator)
        yield from layer_inputs(pipe, modules, torch.cat([others, *near]), generator)

    members_moments = [
        _own_second_moments(
            pipe, member, modules, dirichlet_mixtures(person, config.own, generator), generator
        )
        for member, person in zip(members, people, strict=True)
    ]
    return SecondMoments(members_moments, second_moments(retained()), config.retain_weight, config.ridge)


def _neighbours(
    centre: torch.Tensor, others: torch.Tensor, count: int, generator: torch.Generator
) -> torch.Tensor:
    chosen = others[torch.randperm(len(others), generator=generator)[:count]]
    return synthetic_neighbours(centre, chosen, 0.3, 0.7, generator)


def _embeddings_of(member: StackMember) -> torch.Tensor:
    if member.embeddings is None:
        raise BadInput(
            f"whom adapter {member.adapter.id} forgets is not known; pass `identity` for every adapter, "
            "or keep it in the ledger"
        )
    return member.embeddings


def _own_second_moments(
    pipe: StableDiffusionPipeline,
    member: StackMember,
    modules: list[str],
    conditions: torch.Tensor,
    generator: torch.Generator,
) -> dict[str, torch.Tensor]:
    """With the member active: deeper layers see what its own change makes of the condition."""
    name = load_adapter(pipe, member.adapter, weight=member.weight)
    try:
        carrying = TokenSample.of(pipe.tokenizer, from_identity=True, prompt=prompt_of(pipe.text_encoder))
        return second_moments(layer_inputs(pipe, modules, conditions, generator, tokens=carrying))
    finally:
        unload(pipe, [name])
