"""How much a stack of adapters disturbs whom, before anything is generated."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionPipeline

from piu_lora.adapter import Interference, relative_changes, require_base, stacks_of
from piu_lora.evidence import aligned, heat_map
from piu_lora.identity import IdentityBank
from piu_lora.jobs.case import bank_for
from piu_lora.jobs.members import Member, require_distinct
from piu_lora.jobs.moments import bystanders
from piu_lora.model import as_pipeline, layer_inputs, layer_weight, sees_condition

__all__ = ["StackCheck", "check_picture", "check_stack", "check_table"]


@dataclass(frozen=True)
class StackCheck:
    """The interference of a stack.

    Attributes:
        ids: of the adapters, in their order.
        interference: by stack and person; the first people are those of ``owners``, the rest bystanders of the bank.
        owners: places of the adapters whose person is known.
        limit: the highest allowed 95th percentile over bystanders of the change of keys and values.
    """

    ids: tuple[str, ...]
    interference: Interference
    owners: tuple[int, ...]
    limit: float

    @property
    def bystanders(self) -> range:
        """Columns of people whom no adapter is meant to change."""
        return range(len(self.owners), self.interference.condition.shape[1])

    @property
    def exceeded(self) -> list[tuple[int, ...]]:
        """The stacks over the limit."""
        return [
            stack
            for place, stack in enumerate(self.interference.stacks)
            if self.interference.harm(place, self.bystanders)["p95"] > self.limit
        ]

    def facts(self) -> dict[str, Any]:
        """Everything, ready for JSON; people are numbers, so that it names nobody."""
        found, own = self.interference, {place: column for column, place in enumerate(self.owners)}
        stacks = [
            {
                "adapters": [self.ids[i] for i in stack], "bystanders": found.harm(place, self.bystanders),
                "activations": None if found.activations is None else float(found.activations[place].mean()),
                "own": {self.ids[i]: float(found.condition[place, own[i]]) for i in stack if i in own},
                "over_limit": stack in self.exceeded,
            }
            for place, stack in enumerate(found.stacks)
        ]  # fmt: skip
        return {"limit": self.limit, "people": len(self.bystanders), "stacks": stacks, "hurts": self.hurts()}

    def hurts(self) -> list[dict[str, Any]]:
        """For every adapter alone and every other adapter's person: the change, as a share of the meant one."""
        lines = []
        for column, target in enumerate(self.owners):
            meant = self.interference.condition[target, column]
            for source in range(len(self.ids)):
                if source != target:
                    value = float(self.interference.condition[source, column])
                    lines.append({"adapter": self.ids[source], "person_of": self.ids[target], "change": value, "of_meant": value / meant})
        return sorted(lines, key=lambda line: -line["of_meant"])


def check_stack(
    members: Sequence[Member], base: str | Path | StableDiffusionPipeline, bank: IdentityBank | str | Path | None = None, *,
    people: int = 64, activations: int = 8, limit: float = 0.1, seed: int = 0, device: str = "auto",
) -> StackCheck:  # fmt: skip
    """Measure how much each adapter, each pair and the whole stack change for people of the bank, without generating anything.

    Args:
        members: the stack; where a member's person is known, its effect on the other members' people is told apart.
        people: bystanders sampled from the bank.
        activations: how many of all people the layers behind the latents are measured on; 0 leaves those layers out.
        limit: see ``StackCheck``.

    Raises:
        BadInput: no adapters, or the same one twice.
        Incompatible: they belong to another base.
    """
    require_distinct(members)
    known, pipe = bank_for(base, bank), as_pipeline(base, device)
    for member in members:
        require_base(pipe, member.adapter)
    generator = torch.Generator().manual_seed(seed)
    owners = [place for place, member in enumerate(members) if member.embeddings is not None]
    own = [member.embeddings for member in members if member.embeddings is not None]
    rows = bystanders(known, own, people, generator)
    embeddings = torch.stack([*(person[0] for person in own), *(known.of(known.ids[row])[0] for row in rows)])
    changes, weights = [member.adapter.change for member in members], [member.weight for member in members]
    modules = sorted({module for change in changes for module in change})
    stacks = stacks_of(len(members))

    def measured(chosen: list[str], conditions: torch.Tensor) -> Any:
        inputs = layer_inputs(pipe, chosen, conditions, generator, from_identity=True)
        return relative_changes(changes, weights, stacks, inputs, {module: layer_weight(pipe, module) for module in chosen})

    direct = [module for module in modules if sees_condition(module)]
    behind = [module for module in modules if not sees_condition(module)]
    table = measured(direct or behind, embeddings)
    others = measured(behind, embeddings[:activations]) if behind and direct and activations else None
    return StackCheck(tuple(member.adapter.id for member in members), Interference(stacks, table, others), tuple(owners), limit)


def check_table(check: StackCheck) -> str:
    """For people: what each stack changes for whom, and which adapters reach another one's person."""
    found = check.interference
    rows = [("stack", "bystanders, median", "95 %", "highest", "behind the latents", "own person", "")]
    for place, stack in enumerate(found.stacks):
        harm, own = (
            found.harm(place, check.bystanders),
            [found.condition[place, c] for c, owner in enumerate(check.owners) if owner in stack],
        )
        deep = "-" if found.activations is None else f"{found.activations[place].mean():.2f}"
        meant = f"{min(own):.2f} to {max(own):.2f}" if len(own) > 1 else f"{own[0]:.2f}" if own else "not known"
        over = "over the limit" if stack in check.exceeded else ""
        rows.append((_label(check, stack), f"{harm['median']:.2f}", f"{harm['p95']:.2f}", f"{harm['max']:.2f}", deep, meant, over))
    lines = [*aligned(rows), "", f"Relative change |dW x| / |W x| of keys and values; limit {check.limit:g} for the 95th percentile."]
    worst = check.hurts()[:5]
    if worst:
        lines += ["", "Who hurts whom most (change of the other adapter's person, as a share of what that adapter itself means to change):"]
        lines += [f"  {line['adapter']} -> person of {line['person_of']}: {line['of_meant']:.2f}" for line in worst]
    if len(check.owners) < len(check.ids):
        lines.append("Whom some adapters forget is not known here, so they may be among the bystanders; pass --identity once for each.")
    return "\n".join(lines)


def _label(check: StackCheck, stack: tuple[int, ...]) -> str:
    return f"all {len(stack)}" if len(stack) > 2 else " + ".join(check.ids[place] for place in stack)


def check_picture(check: StackCheck) -> bytes:
    """The same as a heat map, PNG; people are numbers."""
    rows = [_label(check, stack) for stack in check.interference.stacks]
    groups = [("own people", [check.ids[owner][:6] for owner in check.owners]), ("bystanders", [""] * len(check.bystanders))]
    return heat_map(check.interference.condition, rows, groups, "Interference of adapters", "|dW x| / |W x|, keys and values")
