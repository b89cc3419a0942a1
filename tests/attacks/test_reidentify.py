import numpy as np
import pytest
import scipy.linalg
import scipy.stats
import torch
from diffusers import StableDiffusionPipeline

from piu_lora.adapter import Factors, relative_changes
from piu_lora.attacks import ATTACKS, random_change
from piu_lora.attacks.reidentify import advantage, rank_of, signals
from piu_lora.identity import IdentityBank
from piu_lora.model import TokenSample, layer_inputs, layer_weight, sees_condition
from tests.adapter import stacks
from tests.attacks.contexts import QUICK, context_of


def seen(pipe: StableDiffusionPipeline, modules: list[str], probes: torch.Tensor) -> dict[str, torch.Tensor]:
    (batch,) = layer_inputs(
        pipe,
        modules,
        probes,
        torch.Generator(),
        batch=len(probes),
        tokens=TokenSample.of(pipe.tokenizer, from_identity=True),
    )
    return batch


def test_ranks_and_advantage() -> None:
    scores = torch.tensor([0.2, 0.9, 0.9, 0.1, 0.9])
    expected = scipy.stats.rankdata(-scores.numpy(), method="average")
    assert [rank_of(scores, place) for place in range(5)] == expected.tolist()
    assert [advantage(rank, 5) for rank in (1, 3, 5)] == [1, 0, -1]
    # A guess: the mean over all ranks.
    assert np.mean([advantage(rank, 11) for rank in range(1, 12)]) == pytest.approx(0)


def test_signals_against_dense_matrices(pipe: StableDiffusionPipeline, bank: IdentityBank) -> None:
    change = stacks.random_change(pipe, 1, encoder=True)
    context, probes = context_of(pipe, bank, change), bank.centroids[:7]
    (found,) = signals(context, [change], probes, torch.Generator())
    direct = [module for module in sorted(change) if sees_condition(module)]
    inputs = seen(pipe, direct, probes)
    weights = {module: layer_weight(pipe, module) for module in direct}
    reference = relative_changes(
        [{module: change[module] for module in direct}], [1.0], [(0,)], [inputs], weights
    )
    assert np.allclose(found["response"], reference[0], rtol=1e-4)
    sums = {"rows": np.zeros(7), "columns": np.zeros(7), "unusual": np.zeros(7)}
    for module in direct:
        x, weight = inputs[module].double().numpy(), weights[module].double().numpy()
        rows = scipy.linalg.orth(change[module].down.double().numpy().T)
        columns = scipy.linalg.orth(change[module].up.double().numpy())
        before = x @ weight.T
        sums["rows"] += ((x @ rows) ** 2).sum(axis=(1, 2)) / (x**2).sum(axis=(1, 2))
        sums["columns"] += ((before @ columns) ** 2).sum(axis=(1, 2)) / (before**2).sum(axis=(1, 2))
        moved = (x - x.mean(axis=0)) @ change[module].dense().double().numpy().T
        sums["unusual"] += (moved**2).sum(axis=(1, 2)) / (before**2).sum(axis=(1, 2))
    for name, total in sums.items():
        assert np.allclose(found[name], np.sqrt(total / len(direct)), rtol=1e-4), name


def test_a_planted_direction_is_found(pipe: StableDiffusionPipeline, bank: IdentityBank) -> None:
    """Every layer's A is what sets the condition of the forgotten person apart: they lead the list."""
    modules = [module for module in stacks.layers(pipe, encoder=False) if sees_condition(module)]
    inputs = seen(pipe, modules, bank.centroids)
    generator = torch.Generator().manual_seed(0)
    change = {}
    for module in modules:
        mean = inputs[module].mean(dim=0)
        spread = (inputs[module] - mean).flatten(0, 1)
        # Fisher's direction: what sets them apart from everybody, not what is large.
        own = torch.linalg.solve(
            spread.T @ spread + 0.1 * torch.eye(spread.shape[1]), (inputs[module][0] - mean).mean(dim=0)
        )
        change[module] = Factors(
            own[None] / own.norm(), torch.randn(len(layer_weight(pipe, module)), 1, generator=generator)
        )
    found = ATTACKS["reidentify"].run(context_of(pipe, bank, change), QUICK)
    assert found.figures["people"] == len(bank)
    assert found.figures["unusual_rank"] == 1
    assert found.figures["unusual_advantage"] == 1
    assert found.figures["unusual_top"] == 1
    assert found.figures["unusual_control_advantage"] < 1
    assert found.succeeded


def test_random_weights_find_people_by_chance(pipe: StableDiffusionPipeline, bank: IdentityBank) -> None:
    """Over 200 random adapters and people, the mean advantage is that of a guess (its standard error is
    0.04).
    """
    change = {
        module: each for module, each in stacks.random_change(pipe, 1).items() if sees_condition(module)
    }
    generator = torch.Generator().manual_seed(0)
    drawn = [random_change(change, generator) for _ in range(200)]
    scores = signals(context_of(pipe, bank, change), drawn, bank.centroids, generator)
    places = torch.randint(len(bank), (len(drawn),), generator=generator).tolist()
    for name in ("response", "unusual", "rows", "columns"):
        gains = [
            advantage(rank_of(each[name], place), len(bank))
            for each, place in zip(scores, places, strict=True)
        ]
        assert abs(np.mean(gains)) < 0.13
        assert np.std(gains) > 0.4


def test_several_people_are_all_looked_for(pipe: StableDiffusionPipeline, bank: IdentityBank) -> None:
    found = ATTACKS["reidentify"].run(context_of(pipe, bank, stacks.random_change(pipe, 1), people=3), QUICK)
    ranks = [row[2] for row in found.rows if row[0].startswith("response |dW") and row[1] == "forgotten"]
    assert len(ranks) == 3
    assert found.figures["response_rank"] == sorted(ranks)[1]
    assert found.figures["response_top"] == sum(rank <= 3 for rank in ranks)


def test_an_adapter_that_no_condition_reaches_directly_is_probed_on_latents(
    pipe: StableDiffusionPipeline, bank: IdentityBank
) -> None:
    change = {
        module: each for module, each in stacks.random_change(pipe, 1).items() if module.endswith("to_q")
    }
    found = ATTACKS["reidentify"].run(context_of(pipe, bank, change), QUICK)
    assert 1 <= found.figures["best_rank"] <= len(bank)
