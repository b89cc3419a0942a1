"""Which neurons of an MLP become gates: those that matter least to everybody, each for one person only."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from piu_lora.errors import BadInput

__all__ = [
    "Handout",
    "chosen_neurons",
    "gate_layers",
    "handed_out",
    "neuron_energy",
    "neuron_names",
    "neuron_numbers",
    "shared_gates",
    "taken_gates",
]

_PAIR = 2  # neurons that decide


@dataclass(frozen=True)
class Handout:
    """The neurons of one person.

    Attributes:
        deciding, writing: numbers in their layers.
        rank: of the deciding ones among all, by pairs, the least important first; nobody else has it.
    """

    deciding: tuple[int, ...]
    writing: tuple[int, ...]
    rank: int


def neuron_energy(squares: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """``E[a_j^2] |W_j|^2``: what each neuron writes into the residual stream, on average.

    Args:
        squares: (width,) mean square of each activation, over retained conditions.
        columns: (hidden, width), the weight of ``fc2``.

    Returns:
        (width,) float64.
    """
    return squares.double() * columns.double().square().sum(dim=0)


def chosen_neurons(
    energy: torch.Tensor, count: int, occupied: Iterable[int] = (), avoided: Iterable[int] = ()
) -> list[int]:
    """The ``count`` neurons of least energy that are not occupied, the least important first; those that are
    avoided come after all others.

    Raises:
        BadInput: there are not so many.
    """
    used, last = set(occupied), set(avoided)
    free = [neuron for neuron in energy.argsort(stable=True).tolist() if neuron not in used]
    free.sort(key=last.__contains__)
    if len(free) < count:
        raise BadInput(
            f"{count} gate neurons are needed, and {len(free)} of the layer's {len(energy)} are free; "
            "name fewer people, lower gate.rank, or use another layer"
        )
    return free[:count]


def handed_out(
    energies: tuple[torch.Tensor, torch.Tensor],
    layers: tuple[int, int],
    people: int,
    writing: int,
    occupied: Sequence[str],
    avoided: Sequence[str] = (),
) -> list[Handout]:
    """Neurons for each of so many people, of the deciding and of the writing layer.

    Args:
        energies: of either layer's neurons.
        layers: their numbers.
        writing: how many each person gets of the writing layer.
        occupied: ``layer.neuron`` names of those that are taken.
        avoided: of those that are handed out only where no others are left.
    """
    early, late = (
        chosen_neurons(
            energy, neurons * people, neuron_numbers(occupied, layer), neuron_numbers(avoided, layer)
        )
        for energy, layer, neurons in zip(energies, layers, (_PAIR, writing), strict=True)
    )
    order = energies[0].argsort(stable=True).tolist()
    return [
        Handout(
            tuple(early[_PAIR * person : _PAIR * (person + 1)]),
            tuple(late[writing * person : writing * (person + 1)]),
            order.index(early[_PAIR * person]) // _PAIR,
        )
        for person in range(people)
    ]


def neuron_names(layer: int, neurons: Sequence[int]) -> list[str]:
    """``layer.neuron`` of each: how a receipt records them."""
    return [f"{layer}.{neuron}" for neuron in neurons]


def neuron_numbers(names: Iterable[str], layer: int) -> list[int]:
    """The neurons of one layer among ``layer.neuron`` names; raises as ``gate_layers``."""
    return gate_layers(names).get(layer, [])


def gate_layers(names: Iterable[str]) -> dict[int, list[int]]:
    """The neurons of ``layer.neuron`` names, by layer.

    Raises:
        BadInput: not of that form.
    """
    layers: dict[int, list[int]] = {}
    for name in names:
        layer, _, neuron = name.partition(".")
        if not (layer.isdigit() and neuron.isdigit()):
            raise BadInput(
                f"{name!r} in gate.occupied or gate.avoided names no neuron; expected LAYER.NEURON, "
                "as a receipt's gates list them"
            )
        layers.setdefault(int(layer), []).append(int(neuron))
    return layers


def taken_gates(solutions: Iterable[Mapping[str, Any]]) -> list[str]:
    """The neurons that adapters have taken, ``layer.neuron``, each once: what ``gate.occupied`` takes.

    Args:
        solutions: of their receipts.
    """
    return sorted({name for solution in solutions for name in solution.get("gates", ())})


def shared_gates(solutions: Sequence[Mapping[str, Any]]) -> dict[str, list[int]]:
    """Neurons that several adapters have taken, and the places of these adapters in ``solutions``."""
    owners: dict[str, list[int]] = {}
    for place, solution in enumerate(solutions):
        for name in solution.get("gates", ()):
            owners.setdefault(name, []).append(place)
    return {name: places for name, places in owners.items() if len(places) > 1}
