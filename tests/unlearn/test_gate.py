"""Gate neurons: the readout and the ramp against dense references, and the method on a tiny pipeline."""

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file

from piu_lora import forget
from piu_lora.adapter import mounted, unload
from piu_lora.config import ForgetConfig
from piu_lora.errors import BadInput
from piu_lora.identity import IdentityBank
from piu_lora.identity.profiles import GENERIC
from piu_lora.jobs.request.request import open_request
from piu_lora.jobs.request.session import Session
from piu_lora.jobs.training.bank_statistics import cache_folder
from piu_lora.jobs.training.run_method import as_stored, solve_context
from piu_lora.model import Prompt, encode_embeddings
from piu_lora.model.factors import concatenated
from piu_lora.unlearn import GateConfig, Problem, Solution, SolveContext, find_method
from piu_lora.unlearn.closed.encoder import edited
from piu_lora.unlearn.gate.band import chosen_band
from piu_lora.unlearn.gate.cells import Site, grouped
from piu_lora.unlearn.gate.encoder import GateEncoder
from piu_lora.unlearn.gate.neurons import chosen_neurons, neuron_energy, neuron_numbers
from piu_lora.unlearn.gate.ramp import Ramp, rewired
from piu_lora.unlearn.gate.readout import SiteMoments, System
from tests.unlearn.test_closed import conditions

WHO = "person-003"


def samples(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_system_is_weighted_least_squares_on_all_rows() -> None:
    """The independent reference: one tall system by numpy's lstsq."""
    inputs, embeddings, more = samples(0, 40, 12), samples(1, 40, 5), samples(2, 9, 12)
    directions, offsets, asked = samples(3, 5, 2), samples(4, 2), samples(5, 9, 2)
    system = System(12, 2)
    system.add_moments(SiteMoments.of(inputs, embeddings), directions, offsets, 0.7)
    system.add_rows(more, asked, 0.2)
    wanted = embeddings @ directions + offsets
    floor = 1e-3 * float(((0.7 / 40) * inputs.T @ inputs + (0.2 / 9) * more.T @ more).diagonal().mean())
    tall = np.concatenate(
        [inputs.numpy() * (0.7 / 40) ** 0.5, more.numpy() * (0.2 / 9) ** 0.5, floor**0.5 * np.eye(12)]
    )
    right = np.concatenate(
        [wanted.numpy() * (0.7 / 40) ** 0.5, asked.numpy() * (0.2 / 9) ** 0.5, np.zeros((12, 2))]
    )
    assert np.allclose(system.solved(1e-3).numpy(), np.linalg.lstsq(tall, right, rcond=None)[0], atol=1e-8)


def test_a_pair_of_neurons_is_a_ramp() -> None:
    """A dense MLP with the rewired rows and columns put in by hand, in float64 and as an adapter stores
    them.
    """
    first, second = torch.nn.Linear(6, 10), torch.nn.Linear(10, 6)
    scores = torch.linspace(-1, 1, 41)
    inputs = torch.stack([scores, torch.ones(41), *([torch.zeros(41)] * 4)], dim=1)
    readout, constant = torch.eye(6)[0], torch.eye(6)[1]
    ramp = Ramp(readout, constant, samples(1, 6).float(), 0.2)
    rows, columns = rewired([ramp], [7, 2], first, second, 60.0, constant)
    for dtype in (torch.float32, torch.float16):
        stored = [factors.to(dtype).to(torch.float32) for factors in (rows, columns)]
        fc1, fc2 = first.weight.detach() + stored[0].dense(), second.weight.detach() + stored[1].dense()

        def quick(values: torch.Tensor) -> torch.Tensor:
            return values * torch.sigmoid(1.702 * values)

        others = [neuron for neuron in range(10) if neuron not in (7, 2)]
        hidden = quick(inputs @ fc1.T + first.bias.detach())
        added = hidden @ fc2.T - hidden[:, others] @ second.weight.detach()[:, others].T
        opened = added @ ramp.change / (ramp.change @ ramp.change)
        assert float((opened - (scores / 0.2).clamp(0, 1)).abs().max()) < 0.03
    assert (rows.rank, columns.rank) == (2, 2)
    unchanged = rows.dense().abs().sum(dim=1) + columns.dense().abs().sum(dim=0)
    assert (unchanged > 0).nonzero()[:, 0].tolist() == [2, 7]


def test_neurons_the_least_important_first_and_never_twice() -> None:
    activations, columns = samples(0, 50, 7), samples(1, 4, 7)
    energy = neuron_energy(activations.square().mean(dim=0), columns)
    reference = [float((activations[:, j] ** 2).mean() * (columns[:, j] ** 2).sum()) for j in range(7)]
    assert torch.allclose(energy, torch.tensor(reference, dtype=torch.float64))
    order = sorted(range(7), key=reference.__getitem__)
    assert chosen_neurons(energy, 3) == order[:3]
    assert chosen_neurons(energy, 3, occupied=order[:2]) == order[2:5]
    assert neuron_numbers(["2.5", "1.4", "2.0"], 2) == [5, 0]
    with pytest.raises(BadInput, match=r"6 of the layer's 7 are free.*gate\.pairs"):
        chosen_neurons(energy, 7, occupied=[0])
    with pytest.raises(BadInput, match=r"gate\.occupied.*'two'"):
        neuron_numbers(["two"], 1)


def test_positions_that_move_alike_share_a_pair() -> None:
    one, other = samples(0, 8), samples(1, 8)
    sites = [Site(0, 4), Site(0, 5), Site(0, 6), Site(1, 2)]
    cells = grouped(list(zip(sites, [one, other, 2 * other, 0.5 * other + 0.01 * one], strict=True)), pairs=4)
    assert sorted(len(cell.sites) for cell in cells) == [1, 3]
    shared = max(cells, key=lambda cell: len(cell.sites))
    for site, amount in zip(shared.sites, shared.amounts.tolist(), strict=True):
        wanted = {5: other, 6: 2 * other, 2: 0.5 * other}[site.position]
        assert torch.allclose(amount * shared.change, wanted, atol=0.1)
    assert len(grouped([(Site(0, place), samples(place, 8)) for place in range(6)], pairs=2)) == 2


def test_where_a_gate_opens() -> None:
    """Above the nearest real person, within the person's reach; one inside the cone is the person, one on its
    rim is counted.
    """
    config, quiet = GateConfig(), torch.tensor([0.1, 0.28])
    reach = GENERIC.reach(3)
    band = chosen_band(3, quiet, GENERIC, config).band
    assert band.low == pytest.approx(0.28 + config.clearance)  # GENERIC's own 1e-3 is lower
    assert band.low < band.high <= max(reach.quantile(config.missed), band.low + 0.06)
    twin = chosen_band(3, torch.tensor([0.1, 0.47]), GENERIC, config)
    assert twin.look_alikes == 0 or twin.band.low < 0.47
    assert chosen_band(1, torch.tensor([0.41]), GENERIC, config).look_alikes == 1
    under_another_id = chosen_band(3, torch.tensor([0.1, 0.28, 0.8]), GENERIC, config)
    assert (under_another_id.band, under_another_id.inside) == (band, 1)
    assert chosen_band(1, quiet, GENERIC, config).missed > chosen_band(10, quiet, GENERIC, config).missed
    asked = chosen_band(3, quiet, GENERIC, GateConfig(low=0.2, high=0.5)).band
    assert (asked.low, asked.high) == (0.2, 0.5)


EASY = {"gate": {"variations": 64, "near": 8, "retained": 150}, "anchor": {"rule": "farthest"}}


def context_of(
    pipe: StableDiffusionPipeline, bank: IdentityBank, config: ForgetConfig, people: list[str]
) -> tuple[Problem, SolveContext]:
    request = open_request(people, bank, config, None)
    return request.problem, solve_context(Session(pipe, bank), request)


def solve(problem: Problem, context: SolveContext, config: ForgetConfig) -> Solution:
    method = find_method("gate-encoder").solve
    assert method is not None
    return method(problem, context, config)


def solved(
    pipe: StableDiffusionPipeline, bank: IdentityBank, config: ForgetConfig
) -> tuple[Problem, Solution]:
    problem, context = context_of(pipe, bank, config, [WHO])
    return problem, solve(problem, context, config)


def test_the_edited_encoder_writes_the_anchor(
    pipe: StableDiffusionPipeline, bank: IdentityBank, fast: ForgetConfig
) -> None:
    problem, solution = solved(pipe, bank, fast.updated(EASY))
    person, anchor = conditions(pipe, problem.targets[0].forget), conditions(pipe, problem.anchors)
    change = as_stored(solution.change)
    with edited(pipe.text_encoder, change):
        hooked = conditions(pipe, problem.targets[0].forget)
    with mounted(pipe, change):
        loaded = conditions(pipe, problem.targets[0].forget)
    assert torch.allclose(hooked, loaded, atol=1e-4)
    assert float((loaded - anchor).norm()) < 0.6 * float((person - anchor).norm())
    assert torch.equal(conditions(pipe, problem.targets[0].forget), person)


def test_the_neurons_are_recorded_and_no_other_is_touched(
    pipe: StableDiffusionPipeline, bank: IdentityBank, fast: ForgetConfig
) -> None:
    _, solution = solved(pipe, bank, fast.updated(EASY))
    first, second = (
        next(f for module, f in solution.change.items() if module.endswith(end)) for end in ("fc1", "fc2")
    )
    touched = sorted(set(first.dense().abs().sum(dim=1).nonzero()[:, 0].tolist()))
    assert touched == sorted(set(second.dense().abs().sum(dim=0).nonzero()[:, 0].tolist()))
    assert sorted(solution.facts["gates"]) == sorted(f"1.{neuron}" for neuron in touched)
    assert len(touched) == first.rank


def test_people_made_one_by_one_add_up(
    pipe: StableDiffusionPipeline, bank: IdentityBank, fast: ForgetConfig
) -> None:
    config = fast.updated(EASY).updated({"gate": {"pairs": 2}})
    problem, context = context_of(pipe, bank, config, [WHO, "person-017"])
    together = solve(problem, context, config)
    first = solve(Problem(problem.targets[:1], problem.retain), context, config)
    later = config.updated({"gate": {"occupied": first.facts["gates"]}})
    second = solve(Problem(problem.targets[1:], problem.retain), context, later)
    assert not set(first.facts["gates"]) & set(second.facts["gates"])
    assert sorted([*first.facts["gates"], *second.facts["gates"]]) == sorted(together.facts["gates"])
    for module, factors in concatenated([first.change, second.change], [1.0, 1.0]).items():
        assert torch.allclose(factors.dense(), together.change[module].dense(), atol=1e-4)


def test_an_ordinary_adapter_folder(
    pipe: StableDiffusionPipeline, bank: IdentityBank, fast: ForgetConfig, tmp_path: Path
) -> None:
    """Stock diffusers loads fc1 and fc2 of the text encoder, in half precision, and computes what was solved
    for.
    """
    config = fast.updated({"method": "gate-encoder", **EASY})
    result = forget(WHO, pipe, tmp_path / "out", bank=bank, config=config)
    assert result.receipt.solution["gates"]
    rows = bank.of(WHO)
    plain = conditions(pipe, rows)
    pipe.load_lora_weights(
        str(result.path), adapter_name="stock", weight_name="pytorch_lora_weights.safetensors"
    )
    stock = conditions(pipe, rows)
    unload(pipe, ["stock"])
    _, solution = solved(pipe, bank, config)
    with mounted(pipe, as_stored(solution.change)):
        ours = conditions(pipe, rows)
    assert torch.allclose(stock, ours, atol=1e-4)
    assert float((stock - plain).norm()) > 0.01 * float(plain.norm())


def test_what_is_cached_for_a_bank_is_that_of_the_retained(
    pipe: StableDiffusionPipeline, bank: IdentityBank, fast: ForgetConfig
) -> None:
    """The file is made once, private, of sums alone; whoever a request may not see is subtracted."""
    config = fast.updated(EASY).updated({"gate": {"retained": len(bank.labels)}})
    encoder = GateEncoder(pipe, config.section_of(GateConfig))
    for person in (WHO, "person-017"):
        problem, context = context_of(pipe, bank, config, [person])
        assert context.averages is not None
        averages = context.averages(encoder.measurement)
        embeddings = problem.retain[torch.arange(len(problem.retain))]
        for name, total in encoder.sums(embeddings).items():
            assert torch.allclose(averages[name], total / len(embeddings), rtol=1e-4, atol=1e-6)
    (path,) = (cache_folder() / "retained").iterdir()
    assert path.stat().st_mode & 0o777 == 0o600
    hidden, width = pipe.text_encoder.config.hidden_size, bank.embeddings.shape[1]
    kinds = {(hidden, hidden), (hidden, width), (hidden,), (pipe.text_encoder.config.intermediate_size,)}
    assert {tuple(value.shape) for value in load_file(path).values()} == kinds


def test_a_layer_that_is_not_there(
    pipe: StableDiffusionPipeline, bank: IdentityBank, fast: ForgetConfig
) -> None:
    with pytest.raises(BadInput, match=r"gate\.layer = 7.*2 layers"):
        solved(pipe, bank, fast.updated(EASY).updated({"gate": {"layer": 7}}))


def test_another_prompt_is_gated_where_it_is_asked_for(
    pipe: StableDiffusionPipeline, bank: IdentityBank, fast: ForgetConfig
) -> None:
    """Its positions are sites of their own, and the person's condition under it comes nearer to the
    anchor's.
    """
    config = fast.updated(EASY).updated({"gate": {"templates": ["id person"]}})
    problem, solution = solved(pipe, bank, config)
    template = Prompt("id person", "id")

    def under(embeddings: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return encode_embeddings(pipe.text_encoder, pipe.tokenizer, embeddings, template)

    person, anchor = under(problem.targets[0].forget), under(problem.anchors)
    assert not torch.allclose(person, conditions(pipe, problem.targets[0].forget), atol=1e-3)
    with edited(pipe.text_encoder, solution.change):
        after = under(problem.targets[0].forget)
    assert float((after - anchor).norm()) < float((person - anchor).norm())
