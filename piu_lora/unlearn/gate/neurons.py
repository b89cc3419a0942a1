"""Which neurons of an MLP become gates: those that matter least to everybody, each for one person only."""

from collections.abc import Iterable, Sequence

import torch

from piu_lora.errors import BadInput

__all__ = ["chosen_neurons", "gate_layers", "neuron_energy", "neuron_names", "neuron_numbers"]


def neuron_energy(squares: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """``E[a_j^2] |W_j|^2``: what each neuron writes into the residual stream, on average.

    Args:
        squares: (width,) mean square of each activation, over retained conditions.
        columns: (hidden, width), the weight of ``fc2``.

    Returns:
        (width,) float64.
    """
    return squares.double() * columns.double().square().sum(dim=0)


def chosen_neurons(energy: torch.Tensor, count: int, occupied: Iterable[int] = ()) -> list[int]:
    """The ``count`` neurons of least energy that are not occupied, the least important first.

    Raises:
        BadInput: there are not so many.
    """
    used = set(occupied)
    free = [neuron for neuron in energy.argsort(stable=True).tolist() if neuron not in used]
    if len(free) < count:
        raise BadInput(
            f"{count} gate neurons are needed, and {len(free)} of the layer's {len(energy)} are free; "
            "name fewer people, lower gate.pairs, or use another gate.layer"
        )
    return free[:count]


def neuron_names(layer: int, neurons: Sequence[int]) -> list[str]:
    """``layer.neuron`` of each: how a receipt records them."""
    return [f"{layer}.{neuron}" for neuron in neurons]


def neuron_numbers(names: Iterable[str], layer: int) -> list[int]:
    """The neurons of one layer among ``layer.neuron`` names.

    Raises:
        BadInput: not of that form.
    """
    numbers = []
    for name in names:
        of_layer, _, neuron = name.partition(".")
        if not (of_layer.isdigit() and neuron.isdigit()):
            raise BadInput(
                f"gate.occupied holds {name!r}; expected LAYER.NEURON, as a receipt's gates list them"
            )
        if int(of_layer) == layer:
            numbers.append(int(neuron))
    return numbers


def gate_layers(names: Iterable[str]) -> dict[int, list[int]]:
    """The neurons of ``layer.neuron`` names, by layer."""
    layers: dict[int, list[int]] = {}
    for name in names:
        layer, _, neuron = name.partition(".")
        layers.setdefault(int(layer), []).append(int(neuron))
    return layers
