"""Which neurons of the encoder's MLPs a person is given."""

import pytest
import torch

from piu_lora.errors import BadInput
from piu_lora.unlearn.gate.neurons import (
    chosen_neurons,
    handed_out,
    neuron_energy,
    neuron_numbers,
    shared_gates,
    taken_gates,
)
from tests.unlearn.test_gate import samples


def test_neurons_the_least_important_first_and_never_twice() -> None:
    activations, columns = samples(0, 50, 7), samples(1, 4, 7)
    energy = neuron_energy(activations.square().mean(dim=0), columns)
    reference = [float((activations[:, j] ** 2).mean() * (columns[:, j] ** 2).sum()) for j in range(7)]
    assert torch.allclose(energy, torch.tensor(reference, dtype=torch.float64))
    order = sorted(range(7), key=reference.__getitem__)
    assert chosen_neurons(energy, 3) == order[:3]
    assert chosen_neurons(energy, 3, occupied=order[:2]) == order[2:5]
    assert chosen_neurons(energy, 6, occupied=[order[0]], avoided=order[1:3]) == [*order[3:], *order[1:3]]
    assert neuron_numbers(["2.5", "1.4", "2.0"], 2) == [5, 0]
    with pytest.raises(BadInput, match=r"6 of the layer's 7 are free.*gate\.rank"):
        chosen_neurons(energy, 7, occupied=[0])
    with pytest.raises(BadInput, match=r"'two' in gate\.occupied"):
        neuron_numbers(["two"], 1)


def test_nobody_shares_a_neuron_or_a_mark() -> None:
    energies = samples(0, 40).square(), samples(1, 60).square()
    handouts = handed_out(energies, (0, 2), 3, 5, ["0.7", "2.4"])
    early = [neuron for handout in handouts for neuron in handout.deciding]
    late = [neuron for handout in handouts for neuron in handout.writing]
    assert (len(set(early)), len(set(late))) == (6, 15)
    assert 7 not in early
    assert 4 not in late
    later = handed_out(energies, (0, 2), 1, 5, [*(f"0.{n}" for n in early), *(f"2.{n}" for n in late)])
    ranks = [handout.rank for handout in [*handouts, *later]]
    assert len(set(ranks)) == 4


def test_which_neurons_receipts_have_taken() -> None:
    solutions = [{"gates": ["0.3", "2.7"]}, {}, {"gates": ["2.7", "0.5"]}]
    assert taken_gates(solutions) == ["0.3", "0.5", "2.7"]
    assert shared_gates(solutions) == {"2.7": [0, 2]}
