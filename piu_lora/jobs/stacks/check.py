"""How much a stack of adapters disturbs whom, before anything is generated."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from diffusers import StableDiffusionPipeline

from piu_lora.adapter import Interference, relative_changes, require_base, stacks_of
from piu_lora.evidence import heat_map
from piu_lora.identity import IdentityBank
from piu_lora.jobs.request.request import bank_for
from piu_lora.jobs.request.session import Base, Session
from piu_lora.jobs.stacks.layer_statistics import bystanders
from piu_lora.jobs.stacks.members import StackMember, require_distinct
from piu_lora.model import TokenSample, layer_inputs, layer_weight, prompt_of, sees_condition
from piu_lora.unlearn.gate.neurons import shared_gates

__all__ = ["StackCheck", "bank_changes", "check_picture", "check_stack"]


# Measured on the embedded base (benchmarks/stacks.py): single adapters stay below the first; sums of two,
# which forget half as well, exceed the second.
LIMIT, OWN_LIMIT = 1.5, 0.25


@dataclass(frozen=True)
class StackCheck:
    """The interference of a stack.

    Attributes:
        ids: of the adapters, in their order.
        interference: by stack and person; the first people are those of ``owners``, the rest bystanders of
            the bank.
        owners: places of the adapters whose person is known.
        others: for each stack, what its other members together change for each owner's person; NaN where it
            has no part in the stack.
        limit: the highest allowed 95th percentile over bystanders of the change of keys and values.
        own_limit: the highest allowed change by other members for a person, as a share of the change that the
            own adapter means.
        rows: of the bystanders in the bank; no part of ``facts``.
    """

    ids: tuple[str, ...]
    interference: Interference
    owners: tuple[int, ...]
    others: npt.NDArray[np.float64]
    limit: float
    own_limit: float
    rows: tuple[int, ...] = ()
    shared_neurons: Mapping[str, Sequence[int]] = field(default_factory=dict)

    @property
    def bystanders(self) -> range:
        """Columns of people whom no adapter is meant to change."""
        return range(len(self.owners), self.interference.condition.shape[1])

    def disturbed(self, index: int) -> dict[str, float]:
        """By adapter of a stack: what the others change for its person, as a share of what it means to change
        itself.
        """
        meant = {
            owner: self.interference.condition[owner, column] for column, owner in enumerate(self.owners)
        }
        return {
            self.ids[owner]: float(self.others[index, column] / meant[owner])
            for column, owner in enumerate(self.owners)
            if not np.isnan(self.others[index, column])
        }

    def over(self, index: int) -> bool:
        """Whether a stack exceeds a limit, or two of its adapters use the same gate neuron."""
        harm = self.interference.harm(index, self.bystanders)["p95"]
        disturbed = any(share > self.own_limit for share in self.disturbed(index).values())
        return bool(harm > self.limit or disturbed or self.collisions(index))

    def collisions(self, index: int) -> list[str]:
        """The gate neurons that two adapters of a stack have both rewired: each takes the old neuron away,
        and a second time is once too often.
        """
        stack = set(self.interference.stacks[index])
        return sorted(
            name for name, owners in self.shared_neurons.items() if len(stack.intersection(owners)) > 1
        )

    def label(self, stack: tuple[int, ...]) -> str:
        """The ids of a stack's adapters; of more than two, their number."""
        return f"all {len(stack)}" if len(stack) > 2 else " + ".join(self.ids[index] for index in stack)

    @property
    def exceeded(self) -> list[tuple[int, ...]]:
        """The stacks over a limit."""
        return [stack for index, stack in enumerate(self.interference.stacks) if self.over(index)]

    def facts(self) -> dict[str, Any]:
        """Everything, ready for JSON; people are numbers, so that it names nobody."""
        interference, columns = self.interference, {index: column for column, index in enumerate(self.owners)}
        stacks = [
            {
                "adapters": [self.ids[i] for i in stack],
                "bystanders": interference.harm(index, self.bystanders),
                "activations": None
                if interference.activations is None
                else float(interference.activations[index].mean()),
                "own": {
                    self.ids[i]: float(interference.condition[index, columns[i]])
                    for i in stack
                    if i in columns
                },
                "disturbed": self.disturbed(index),
                "over_limit": self.over(index),
                "collisions": self.collisions(index),
                "change": [round(float(value), 4) for value in interference.condition[index]],
            }
            for index, stack in enumerate(interference.stacks)
        ]
        people = [f"person of {self.ids[owner]}" for owner in self.owners] + [
            f"bystander {i}" for i in range(len(self.bystanders))
        ]
        return {"limit": self.limit, "own_limit": self.own_limit, "people": people, "stacks": stacks}


def check_stack(
    members: Sequence[StackMember],
    base: Base,
    bank: IdentityBank | str | Path | None = None,
    *,
    people: int = 64,
    activations: int = 4,
    limit: float = LIMIT,
    own_limit: float = OWN_LIMIT,
    seed: int = 0,
    device: str = "auto",
) -> StackCheck:
    """Measure how much each adapter, each pair and the whole stack change for people of the bank, without
    generating anything.

    Args:
        members: the stack; where a member's person is known, its effect on the other members' people is told
            apart.
        people: bystanders sampled from the bank.
        activations: how many of all people the layers behind the latents are measured on; 0 leaves those
            layers out.
        limit, own_limit: see ``StackCheck``.

    Raises:
        BadInput: no adapters, or the same one twice.
        Incompatible: they belong to another base.
    """
    require_distinct(members)
    session = Session(base, bank_for(base, bank), device=device)
    for member in members:
        require_base(session.pipe, member.adapter)
    generator = torch.Generator().manual_seed(seed)
    owners = [index for index, member in enumerate(members) if member.embeddings is not None]
    embeddings, standing_by = _conditions(session.bank, members, people, generator)
    stack = _Stack(session.pipe, members, generator)
    stacks = stacks_of(len(members))
    table = stack.changes(stack.direct or stack.behind, embeddings, stacks)
    others = np.full((len(stacks), len(owners)), np.nan)
    for column, owner in enumerate(owners):
        rows = [row for row, group in enumerate(stacks) if owner in group and len(group) > 1]
        rest = [tuple(index for index in stacks[row] if index != owner) for row in rows]
        if rest:
            person = embeddings[column : column + 1]
            others[rows, column] = stack.changes(stack.direct or stack.behind, person, rest)[:, 0]
    deep = None
    if stack.behind and stack.direct and activations:
        deep = stack.changes(stack.behind, embeddings[:activations], stacks)
    ids = tuple(member.adapter.id for member in members)
    collisions = shared_gates([member.adapter.receipt.solution for member in members])
    interference = Interference(stacks, table, deep)
    return StackCheck(ids, interference, tuple(owners), others, limit, own_limit, standing_by, collisions)


def bank_changes(
    members: Sequence[StackMember],
    base: Base,
    bank: IdentityBank | str | Path | None = None,
    *,
    device: str = "auto",
) -> npt.NDArray[np.float64]:
    """How much a whole stack changes each person of a bank, without generating anything.

    Returns:
        (people,) ``|dW x| / |W x|`` for their centroids, root mean square over the layers that see the
        condition.

    Raises:
        BadInput, Incompatible: as for ``check_stack``.
    """
    require_distinct(members)
    session = Session(base, bank_for(base, bank), device=device)
    for member in members:
        require_base(session.pipe, member.adapter)
    stack = _Stack(session.pipe, members, torch.Generator().manual_seed(0))
    together = [tuple(range(len(members)))]
    table = stack.changes(stack.direct or stack.behind, session.bank.centroids, together)
    return np.asarray(table[0], np.float64)


def _conditions(
    bank: IdentityBank, members: Sequence[StackMember], people: int, generator: torch.Generator
) -> tuple[torch.Tensor, tuple[int, ...]]:
    """(n, d): an embedding of each person whom a member forgets, as far as they are known, then one of each
    bystander; and the bystanders' rows.
    """
    forgotten = [member.embeddings for member in members if member.embeddings is not None]
    rows = bystanders(bank, forgotten, people, generator)
    everybody = [*(person[0] for person in forgotten), *(bank.of(bank.ids[row])[0] for row in rows)]
    return torch.stack(everybody), tuple(rows)


class _Stack:
    """The members on their base; ``direct`` layers see the condition itself, those ``behind`` the latents."""

    def __init__(
        self, pipe: StableDiffusionPipeline, members: Sequence[StackMember], generator: torch.Generator
    ) -> None:
        self._pipe, self._generator = pipe, generator
        self._changes = [member.adapter.change for member in members]
        self._weights = [member.weight for member in members]
        modules = sorted({module for change in self._changes for module in change})
        self.direct = [module for module in modules if sees_condition(module)]
        self.behind = [module for module in modules if not sees_condition(module)]

    def changes(
        self, modules: list[str], embeddings: torch.Tensor, groups: Sequence[tuple[int, ...]]
    ) -> npt.NDArray[np.float64]:
        """The relative change of these layers by each group of members, for each of (n, d) embeddings."""
        prompt = prompt_of(self._pipe.text_encoder)
        carrying = TokenSample.of(self._pipe.tokenizer, from_identity=True, prompt=prompt)
        inputs = layer_inputs(self._pipe, modules, embeddings, self._generator, tokens=carrying)
        originals = {module: layer_weight(self._pipe, module) for module in modules}
        return relative_changes(self._changes, self._weights, groups, inputs, originals)


def check_picture(check: StackCheck) -> bytes:
    """The same as a heat map, PNG; people are numbers."""
    rows = [check.label(stack) for stack in check.interference.stacks]
    groups = [
        ("own people", [check.ids[owner][:6] for owner in check.owners]),
        ("bystanders", [""] * len(check.bystanders)),
    ]
    return heat_map(
        check.interference.condition,
        rows,
        groups,
        "Interference of adapters",
        "|dW x| / |W x|, keys and values",
    )
