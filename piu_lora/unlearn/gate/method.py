"""gate-encoder as a method: whose conditions, which band, which neurons."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from piu_lora.config import ForgetConfig
from piu_lora.identity.geometry import Geometry, variation
from piu_lora.unlearn.gate.band import Outlook, chosen_band
from piu_lora.unlearn.gate.encoder import GateEncoder, measure_everybody
from piu_lora.unlearn.gate.neurons import chosen_neurons, neuron_energy, neuron_names, neuron_numbers
from piu_lora.unlearn.gate.ramp import Ramp, rewired
from piu_lora.unlearn.gate.readout import System
from piu_lora.unlearn.gate.settings import GateConfig
from piu_lora.unlearn.gate.solve import Everybody, Fit, Person, person_ramps
from piu_lora.unlearn.registry import Problem, Solution, SolveContext, TargetIdentity, closed_form

__all__ = ["GatedPerson", "gate_change", "gate_encoder", "gate_person"]


@dataclass(frozen=True)
class GatedPerson:
    """One person's ramps, where their gate opens, and how well it reads."""

    ramps: list[Ramp]
    outlook: Outlook
    figures: dict[str, float]


@closed_form(
    "gate-encoder",
    "gate neurons in the text encoder",
    "this project",
    settings=GateConfig,
    defaults={"anchor": {"rule": "synthetic"}},
    additive=True,
)
def gate_encoder(problem: Problem, context: SolveContext, config: ForgetConfig) -> Solution:
    """Neurons of the text encoder become a step: nothing for everybody else, the anchor's stream for the
    forgotten person.

    For every group of token positions there is one pair: ``fc1`` reads how much of the person there is,
    ``fc2`` writes the change of the stream.
    """
    settings = config.section_of(GateConfig)
    encoder = GateEncoder(context.pipe, settings)
    generator = torch.Generator().manual_seed(config.seed)
    everybody = measure_everybody(problem.retain, encoder, generator, context)
    geometry, nearest = context.geometry(), problem.nearest(settings.near)
    people = [
        gate_person(target, problem.retain[rows], encoder, everybody, geometry, config.seed)
        for target, rows in zip(problem.targets, nearest, strict=True)
    ]
    return gate_change(encoder, everybody, people)


def gate_person(
    target: TargetIdentity,
    near: torch.Tensor,
    encoder: GateEncoder,
    everybody: Everybody,
    geometry: Geometry,
    seed: int,
) -> GatedPerson:
    """Solve for one person; whoever else is forgotten does not enter into it.

    Args:
        near: (n, d) embeddings of the real people nearest to them.
    """
    config, centre = encoder.config, target.centre
    photographs = _photographs(target, geometry, config, torch.Generator().manual_seed(seed))
    outlook = chosen_band(len(target.forget), near @ centre, geometry, config)
    fit = Fit(
        config.eta,
        config.pairs,
        config.ridge,
        photographs=config.own_weight,
        neighbours=config.near_weight,
        templates=config.template_weight,
    )
    ends = torch.stack([centre, target.anchor])
    person = Person(
        centre,
        encoder.record(photographs, centre),
        encoder.record(near, centre),
        encoder.record(ends, centre),
        outlook.band,
    )
    ramps, figures = person_ramps(person, everybody, fit)
    return GatedPerson(ramps, outlook, figures)


def _photographs(
    target: TargetIdentity, geometry: Geometry, config: GateConfig, generator: torch.Generator
) -> torch.Tensor:
    """The known photographs and those that the person might have; shuffled, so that every template is shown
    some of each.
    """
    imagined = variation(target.forget, geometry, config.variations, generator)
    rows = torch.cat([target.forget, imagined])
    return rows[torch.randperm(len(rows), generator=generator)]


def gate_change(encoder: GateEncoder, everybody: Everybody, people: Sequence[GatedPerson]) -> Solution:
    """Hand out neurons, the least important first, in the order of the people, and write the change."""
    name, layer = encoder.layer
    config = encoder.config
    first, second = layer.get_submodule("mlp.fc1"), layer.get_submodule("mlp.fc2")
    if not isinstance(first, torch.nn.Linear) or not isinstance(second, torch.nn.Linear):
        raise TypeError(f"{name}.mlp has {type(first).__name__} and {type(second).__name__}, no plain layers")
    energy = neuron_energy(everybody.squares, second.weight.detach().cpu())
    ramps = [ramp for person in people for ramp in person.ramps]
    occupied = neuron_numbers(config.occupied, encoder.number)
    neurons = chosen_neurons(energy, 2 * len(ramps), occupied)
    one = _constant_readout(everybody, config.ridge)
    rows, columns = rewired(ramps, neurons, first, second, config.scale, one)
    change = {f"text_encoder.{name}.mlp.fc1": rows, f"text_encoder.{name}.mlp.fc2": columns}
    return Solution(change, _facts(neurons, encoder.number, energy, people))


def _constant_readout(everybody: Everybody, ridge: float) -> torch.Tensor:
    """(hidden,) a readout that is 1 everywhere, as far as there is one."""
    system, always = System(len(everybody.background[0]), 1), torch.ones(1)
    system.add_rows(everybody.background, always, 1.0)
    for moments in everybody.sites.values():
        nothing = torch.zeros(moments.cross.shape[1], 1)
        system.add_moments(moments, nothing, always, 1 / len(everybody.sites))
    return system.solved(ridge)[:, 0]


def _facts(
    neurons: Sequence[int], layer: int, energy: torch.Tensor, people: Sequence[GatedPerson]
) -> dict[str, object]:
    """Neurons and figures, nobody's name: bands are rounded, since an exact cosine could name the nearest
    person.
    """
    bands = [person.outlook.band for person in people]
    return {
        "gates": neuron_names(layer, sorted(neurons)),
        "gate_energy": float(f"{float(energy[neurons].sum() / energy.sum()):.2g}"),
        "bands": [[round(band.low, 2), round(band.high, 2)] for band in bands],
        "look_alikes": sum(person.outlook.look_alikes for person in people),
        "inside": sum(person.outlook.inside for person in people),
        "expected_missed": round(max(person.outlook.missed for person in people), 3),
        **{
            f"readout_{name}": round(max(person.figures[name] for person in people), 4)
            for name in people[0].figures
        },
    }
