"""gate-encoder as a method: whose conditions, which band, which neurons."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch

from piu_lora.config import ForgetConfig
from piu_lora.identity.geometry import Geometry, variation
from piu_lora.model.factors import Factors
from piu_lora.unlearn.gate.band import Outlook, chosen_band
from piu_lora.unlearn.gate.decision import Decision, Fit, Reading, decided
from piu_lora.unlearn.gate.encoder import Everybody, GateEncoder, measure_everybody, some_of
from piu_lora.unlearn.gate.marks import mark_directions
from piu_lora.unlearn.gate.neurons import Handout, handed_out, neuron_energy, neuron_names
from piu_lora.unlearn.gate.ramp import Neurons, ramp, rewired
from piu_lora.unlearn.gate.readout import System
from piu_lora.unlearn.gate.settings import GateConfig
from piu_lora.unlearn.gate.writing import Marked, written
from piu_lora.unlearn.registry import Problem, Solution, SolveContext, TargetIdentity, closed_form

__all__ = ["GatedPerson", "Ground", "gate_change", "gate_encoder", "gate_form", "gate_person"]

_MET = 4  # templates that each of the nearest people meets
_ENDS = 16  # templates over which the change at the identity token is averaged
_ROWS = 8192  # positions that the writing neurons are fitted on
_MARK_RIDGE = 1e-4


@dataclass(frozen=True)
class Ground:
    """What serves every person: the encoder, everybody else, and which neurons are free.

    Attributes:
        ones: by layer, deciding and writing, a readout (hidden,) that is 1 everywhere.
        marks: (m, hidden) directions of marks.
    """

    encoder: GateEncoder
    everybody: Everybody
    ones: tuple[torch.Tensor, torch.Tensor]
    marks: torch.Tensor
    energies: tuple[torch.Tensor, torch.Tensor]

    @classmethod
    def of(cls, encoder: GateEncoder, everybody: Everybody) -> "Ground":
        """Measured once."""
        rows = torch.cat([everybody.samples, everybody.elsewhere])
        layers = (encoder.decides, encoder.writes)
        energies = [
            neuron_energy(squares, layer.second.weight.detach().cpu())
            for squares, layer in zip(everybody.squares, layers, strict=True)
        ]
        ones = _constant(rows), _constant(everybody.shut)
        return cls(
            encoder, everybody, ones, mark_directions(encoder, everybody.shut), (energies[0], energies[1])
        )

    def neurons(self, people: int) -> list[Handout]:
        """Neurons for each of so many people, the least important first."""
        config = self.encoder.config
        numbers = (self.encoder.decides.number, self.encoder.writes.number)
        return handed_out(self.energies, numbers, people, config.rank + 1, config.occupied, config.avoided)


@dataclass(frozen=True)
class GatedPerson:
    """One person's neurons, where their gate opens, and how well it reads."""

    handout: Handout
    deciding: Neurons
    writing: Neurons
    outlook: Outlook
    figures: dict[str, float]


gate_form = partial(closed_form, settings=GateConfig, defaults={"anchor": {"rule": "synthetic"}})


@gate_form("gate-encoder", "gate neurons in the text encoder", "this project", additive=True)
def gate_encoder(problem: Problem, context: SolveContext, config: ForgetConfig) -> Solution:
    """Neurons of the text encoder become a step: nothing for everybody else, the anchor's stream for the
    forgotten person.

    An early pair reads at the identity token whether it is the person, and marks the stream; attention
    carries the mark; late neurons write the anchor's stream where it arrives.
    """
    settings = config.section_of(GateConfig)
    encoder = GateEncoder(context.pipe, settings)
    generator = torch.Generator().manual_seed(config.seed)
    ground = Ground.of(encoder, measure_everybody(problem.retain, encoder, generator, context))
    geometry, nearest = context.geometry(), problem.nearest(settings.near)
    handouts = ground.neurons(len(problem.targets))
    people = [
        gate_person(target, problem.retain[rows], ground, geometry, handout, config.seed)
        for target, rows, handout in zip(problem.targets, nearest, handouts, strict=True)
    ]
    return gate_change(ground, people)


def gate_person(
    target: TargetIdentity,
    near: torch.Tensor,
    ground: Ground,
    geometry: Geometry,
    handout: Handout,
    seed: int,
) -> GatedPerson:
    """Solve for one person; whoever else is forgotten does not enter into it.

    Args:
        near: (n, d) embeddings of the real people nearest to them.
    """
    config, centre = ground.encoder.config, target.centre
    generator = torch.Generator().manual_seed(seed)
    imagined = variation(target.forget, geometry, config.variations, generator)
    photographs = torch.cat([target.forget, imagined])
    photographs = photographs[torch.randperm(len(photographs), generator=generator)]
    outlook = chosen_band(len(target.forget), near @ centre, geometry, config)
    decision = _decision(centre, photographs, near, ground, outlook, generator)
    templates = ground.encoder.templates.drawn(_ENDS, generator)
    change = _at_identity(target, ground, templates)
    mark = ground.marks[handout.rank % len(ground.marks)].double() * config.flag * change[1]
    deciding = ramp(decision.score, decision.constant, change[0] + mark, outlook.band.width, config.scale)
    early = _layer_change(ground, 0, [deciding], handout.deciding)
    reached = photographs[photographs @ centre >= outlook.band.high]
    reached = torch.cat([centre[None].expand(max(len(reached) // 8, 1), -1), reached])
    reached = reached.repeat(-(-config.written // len(reached)), 1)[: config.written]
    below = near[near @ centre < outlook.band.low]
    marked, others = _marked(reached, target.anchor, below, ground, early, generator)
    late = written(marked, others, ground.ones[1], config.rank, _MARK_RIDGE)
    return GatedPerson(handout, deciding, late.neurons, outlook, {**decision.figures, **late.figures})


def _decision(
    centre: torch.Tensor,
    photographs: torch.Tensor,
    near: torch.Tensor,
    ground: Ground,
    outlook: Outlook,
    generator: torch.Generator,
) -> Decision:
    """The readout at the identity token, under templates at random."""
    config = ground.encoder.config
    fit = Fit(config.ridge, config.own_weight, config.near_weight)

    def reading(rows: torch.Tensor) -> Reading:
        numbers = ground.encoder.templates.drawn(len(rows), generator)
        return Reading(ground.encoder.at_identity(rows, numbers), rows @ centre)

    met = _MET if config.templates else 1
    person, neighbours = reading(photographs), reading(near.repeat(met, 1))
    return decided(centre, outlook.band, person, neighbours, ground.everybody, fit)


def _at_identity(
    target: TargetIdentity, ground: Ground, numbers: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """What the deciding layer has to add at the identity token, (hidden,), so that the person's stream
    becomes the anchor's, mean over templates; and the size of that stream.
    """
    encoder, positions = ground.encoder, ground.encoder.templates.positions[numbers]
    ends = []
    for row in (target.centre, target.anchor):
        streams = encoder.streams(encoder.decides, row.expand(len(numbers), -1), numbers)
        ends.append(streams.outputs[torch.arange(len(numbers)), positions].double())
    return (ends[1] - ends[0]).mean(dim=0), ends[0].norm(dim=1).mean()


def _marked(
    rows: torch.Tensor,
    anchor: torch.Tensor,
    below: torch.Tensor,
    ground: Ground,
    early: dict[str, Factors],
    generator: torch.Generator,
) -> tuple[Marked, torch.Tensor]:
    """The person's positions under the decision, and the others' inputs.

    The stream goes to ``h(anchor) - eta (h(person) - h(anchor))``: an unseen photograph holds a part of the
    person only, and loses all of it.
    """
    encoder = ground.encoder
    numbers = encoder.templates.drawn(len(rows), generator)
    layer = encoder.writes
    marked = encoder.streams(layer, rows, numbers, early)
    plain = encoder.streams(layer, rows, numbers).outputs
    target = encoder.streams(layer, anchor.expand(len(rows), -1), numbers).outputs
    changes = target + encoder.config.eta * (target - plain) - marked.outputs
    length = marked.inputs.shape[1]
    behind = torch.arange(length)[None] >= encoder.templates.positions[numbers][:, None]
    chosen = torch.randperm(int(behind.sum()), generator=generator)[:_ROWS]
    before = some_of(marked.inputs[~behind], _ROWS // 4, generator)
    others = [ground.everybody.shut]
    if len(below):
        met = below.repeat(_MET, 1) if encoder.config.templates else below
        under = encoder.streams(layer, met, encoder.templates.drawn(len(met), generator), early)
        others.append(some_of(under.inputs.flatten(0, 1), _ROWS // 2, generator))
    return Marked(marked.inputs[behind][chosen], changes[behind][chosen], before), torch.cat(others)


def _layer_change(
    ground: Ground, which: int, neurons: Sequence[Neurons], numbers: Sequence[int]
) -> dict[str, Factors]:
    """The change of the deciding (0) or the writing (1) layer."""
    layer = (ground.encoder.decides, ground.encoder.writes)[which]
    rows, columns = rewired(neurons, numbers, layer.first, layer.second, ground.ones[which])
    name = f"text_encoder.{layer.name}.mlp"
    return {f"{name}.fc1": rows, f"{name}.fc2": columns}


def gate_change(ground: Ground, people: Sequence[GatedPerson]) -> Solution:
    """Everybody's neurons in one change, and what is worth knowing of them."""
    deciding = [number for person in people for number in person.handout.deciding]
    writing = [number for person in people for number in person.handout.writing]
    change = {
        **_layer_change(ground, 0, [person.deciding for person in people], deciding),
        **_layer_change(ground, 1, [person.writing for person in people], writing),
    }
    return Solution(change, _facts(ground, deciding, writing, people))


def _constant(rows: torch.Tensor) -> torch.Tensor:
    """(hidden,) a readout that is 1 everywhere, as far as there is one."""
    system = System(rows.shape[1], 1)
    system.add_rows(rows, torch.ones(1), 1.0)
    return system.solved(1e-6)[:, 0]


def _facts(
    ground: Ground, deciding: Sequence[int], writing: Sequence[int], people: Sequence[GatedPerson]
) -> dict[str, object]:
    """Neurons and figures, nobody's name: bands are rounded, since an exact cosine could name the nearest
    person.
    """
    bands = [person.outlook.band for person in people]
    layers = (ground.encoder.decides.number, ground.encoder.writes.number)
    energy = [
        float(energies[list(numbers)].sum() / energies.sum())
        for energies, numbers in zip(ground.energies, (deciding, writing), strict=True)
    ]
    return {
        "gates": [*neuron_names(layers[0], sorted(deciding)), *neuron_names(layers[1], sorted(writing))],
        "gate_energy": float(f"{max(energy):.2g}"),
        "bands": [[round(band.low, 2), round(band.high, 2)] for band in bands],
        "look_alikes": sum(person.outlook.look_alikes for person in people),
        "inside": sum(person.outlook.inside for person in people),
        "expected_missed": round(max(person.outlook.missed for person in people), 3),
        **{
            f"readout_{name}": round(_worst(name, [person.figures[name] for person in people]), 4)
            for name in people[0].figures
        },
    }


def _worst(name: str, values: Sequence[float]) -> float:
    """The mark wants to be read high where it is; all other figures want to be low."""
    return min(values) if name == "marked" else max(values)
