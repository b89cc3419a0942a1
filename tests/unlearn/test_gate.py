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
from piu_lora.model import Prompt, encode_tokens
from piu_lora.model.factors import concatenated
from piu_lora.unlearn import GateConfig, Problem, Solution, SolveContext, find_method
from piu_lora.unlearn.closed.encoder import edited
from piu_lora.unlearn.gate.band import chosen_band
from piu_lora.unlearn.gate.encoder import GateEncoder
from piu_lora.unlearn.gate.marks import separating
from piu_lora.unlearn.gate.ramp import ramp, rewired
from piu_lora.unlearn.gate.readout import SiteMoments, System
from piu_lora.unlearn.gate.templates import Templates
from piu_lora.unlearn.gate.writing import Marked, written
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
    change = samples(1, 6).float()
    rows, columns = rewired([ramp(readout, constant, change, 0.2, 60.0)], [7, 2], first, second, constant)
    for dtype in (torch.float32, torch.float16):
        stored = [factors.to(dtype).to(torch.float32) for factors in (rows, columns)]
        fc1, fc2 = first.weight.detach() + stored[0].dense(), second.weight.detach() + stored[1].dense()

        def quick(values: torch.Tensor) -> torch.Tensor:
            return values * torch.sigmoid(1.702 * values)

        others = [neuron for neuron in range(10) if neuron not in (7, 2)]
        hidden = quick(inputs @ fc1.T + first.bias.detach())
        added = hidden @ fc2.T - hidden[:, others] @ second.weight.detach()[:, others].T
        opened = added @ change / (change @ change)
        assert float((opened - (scores / 0.2).clamp(0, 1)).abs().max()) < 0.03
    assert (rows.rank, columns.rank) == (2, 2)
    unchanged = rows.dense().abs().sum(dim=1) + columns.dense().abs().sum(dim=0)
    assert (unchanged > 0).nonzero()[:, 0].tolist() == [2, 7]


def test_a_mark_is_told_from_everything_else() -> None:
    """Two clouds that a plane parts, with the means far off it."""
    others, axis = samples(0, 400, 6), samples(1, 6)
    others[:20] *= 5
    marked = samples(2, 100, 6) + 30 * axis / axis.norm()
    others, marked = (torch.cat([rows, torch.ones(len(rows), 1)], dim=1) for rows in (others, marked))
    readout = separating(marked, others, 1e-6)
    assert float((marked @ readout).min()) > 0.9
    assert float((others @ readout).max()) < -0.9


def test_what_is_written_where_the_mark_is_and_only_there() -> None:
    """The MLP with its neurons rewired, against the change that was asked for."""
    first, second = torch.nn.Linear(8, 30), torch.nn.Linear(30, 8)
    others = torch.cat([samples(0, 300, 6), torch.zeros(300, 1), torch.ones(300, 1)], dim=1).float()
    marked = torch.cat([samples(1, 200, 6), torch.full((200, 1), 4.0), torch.ones(200, 1)], dim=1).float()
    wanted = marked @ (samples(2, 8, 2) @ samples(3, 2, 8)).float()
    one = torch.eye(8)[7]
    writing = written(Marked(marked, wanted, others[:10]), others, one, 2, 1e-6)
    numbers = [3, 11, 25]
    rows, columns = rewired([writing.neurons], numbers, first, second, one)
    fc1, fc2 = first.weight.detach() + rows.dense(), second.weight.detach() + columns.dense()

    def added(inputs: torch.Tensor) -> torch.Tensor:
        def quick(values: torch.Tensor) -> torch.Tensor:
            return values * torch.sigmoid(1.702 * values)

        rest = [neuron for neuron in range(30) if neuron not in numbers]
        hidden = quick(inputs @ fc1.T + first.bias.detach())
        return hidden @ fc2.T - hidden[:, rest] @ second.weight.detach()[:, rest].T

    assert float((added(marked) - wanted).norm()) < 0.1 * float(wanted.norm())
    assert float(added(others).norm(dim=1).max()) < 0.02 * float(wanted.norm(dim=1).mean())


def test_templates_hold_the_identity_once(pipe: StableDiffusionPipeline) -> None:
    templates = Templates(pipe.tokenizer, Prompt(), 40, 0.5)
    rows = templates.rows
    assert rows.shape == (40, pipe.tokenizer.model_max_length)
    assert ((rows == templates.identity).sum(dim=1) == 1).all()
    assert pipe.tokenizer.decode(rows[0], skip_special_tokens=True).split() == Prompt().text.split()
    assert len(rows.unique(dim=0)) > 25
    assert len(templates.positions.unique()) > 3
    embeddings = torch.nn.functional.normalize(samples(0, 400, 32)).float()
    numbers = templates.numbers(embeddings)
    assert torch.equal(numbers[100:200], templates.numbers(embeddings[100:200]))
    assert 0.3 < float((numbers == 0).double().mean()) < 0.7
    alone = Templates(pipe.tokenizer, Prompt(), 1, 0.0)
    assert len(alone.rows) == 1
    assert not alone.numbers(embeddings).any()


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


EASY = {
    "gate": {
        "variations": 64,
        "near": 8,
        "retained": 150,
        "checked": 100,
        "written": 200,
        "prompts": 20,
        "rank": 4,
    },
    "anchor": {"rule": "farthest"},
}


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
    touched = []
    for layer in (0, 1):
        first, second = (
            next(f for module, f in solution.change.items() if module.endswith(f"layers.{layer}.mlp.{end}"))
            for end in ("fc1", "fc2")
        )
        rows = first.dense().abs().sum(dim=1).nonzero()[:, 0].tolist()
        assert rows == second.dense().abs().sum(dim=0).nonzero()[:, 0].tolist()
        assert len(rows) == first.rank == (2, 5)[layer]
        touched += [f"{layer}.{neuron}" for neuron in rows]
    assert sorted(solution.facts["gates"]) == sorted(touched)


def test_people_made_one_by_one_add_up(
    pipe: StableDiffusionPipeline, bank: IdentityBank, fast: ForgetConfig
) -> None:
    config = fast.updated(EASY)
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
    with pytest.raises(BadInput, match=r"gate\.layer = 0 does not come behind gate\.decides = 0"):
        solved(pipe, bank, fast.updated(EASY).updated({"gate": {"layer": 0}}))


def test_other_prompts_are_gated(
    pipe: StableDiffusionPipeline, bank: IdentityBank, fast: ForgetConfig
) -> None:
    """The person's condition comes nearer to the anchor's under prompts that were not drawn."""
    problem, solution = solved(pipe, bank, fast.updated(EASY).updated({"gate": {"prompts": 200}}))
    unseen = Templates(pipe.tokenizer, Prompt(), 30, 0.5).rows[1:]
    identity = Templates(pipe.tokenizer, Prompt(), 1, 0.0).identity

    def under(embeddings: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return encode_tokens(pipe.text_encoder, embeddings.expand(len(unseen), -1), unseen, identity)

    person, anchor = under(problem.targets[0].forget[:1]), under(problem.anchors)
    with edited(pipe.text_encoder, solution.change):
        after = under(problem.targets[0].forget[:1])
    left = (after - anchor).flatten(1).norm(dim=1) / (person - anchor).flatten(1).norm(dim=1)
    assert float(left.mean()) < 0.7


def test_both_leaves_neither_part_of_the_base_unedited(
    pipe: StableDiffusionPipeline, bank: IdentityBank, fast: ForgetConfig
) -> None:
    config = fast.updated({"method": "gate-both", **EASY})
    problem, context = context_of(pipe, bank, config, [WHO])
    alone = solve(problem, context, config)
    method = find_method("gate-both").solve
    assert method is not None
    both = method(problem, context, config)
    assert both.facts["gates"] == alone.facts["gates"]
    for module, factors in alone.change.items():
        assert torch.equal(both.change[module].dense(), factors.dense())
    assert {module.partition(".")[0] for module in both.change} == {"unet", "text_encoder"}
