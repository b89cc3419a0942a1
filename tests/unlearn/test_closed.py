from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline

from piu_lora import forget, load_adapter
from piu_lora.adapter import mounted, unload
from piu_lora.config import ForgetConfig
from piu_lora.errors import BadInput
from piu_lora.identity import IdentityBank
from piu_lora.jobs.request.request import open_request
from piu_lora.jobs.request.session import Session
from piu_lora.jobs.training.bank_statistics import cache_folder, retained_second_moments
from piu_lora.model import encode_embeddings, layer_inputs, layer_weight, second_moments
from piu_lora.unlearn import Problem, Solution, SolveContext, find_method, statistics_modules
from piu_lora.unlearn.closed.encoder import edited
from piu_lora.unlearn.closed.solve import SecondMoments, solve_edit

WHO = "person-003"
CLOSED = ("closed-kv", "closed-encoder", "closed-both")
EASY = {
    "closed": {
        "retain_weight": 0.05,
        "neighbours": 0.2,
        "near": 16,
        "mixtures": 8,
        "eta": 0.0,
        "anchor_weight": 0.0,
    }
}


def samples(seed: int, count: int, width: int) -> torch.Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def moments_of(keys: torch.Tensor, wanted: torch.Tensor) -> SecondMoments:
    moments = SecondMoments.empty(wanted.shape[1], keys.shape[1])
    for place in range(0, len(keys), 7):
        moments.add(keys[place : place + 7], wanted[place : place + 7])
    return moments


@pytest.mark.parametrize(("weight", "ridge"), [(1.0, 1e-4), (30.0, 1e-6), (0.1, 1e-2)])
def test_solve_is_dense_least_squares(weight: float, ridge: float) -> None:
    """The independent reference: one tall float64 system by numpy's lstsq, a block for each term."""
    keys, wanted, others = samples(0, 20, 12), samples(1, 20, 9), samples(2, 50, 12)
    retained = others.T @ others / 50
    share = ridge * float((keys.T @ keys / 20 + weight * retained).diagonal().mean())
    tall = np.concatenate(
        [keys.numpy() / 20**0.5, weight**0.5 * others.numpy() / 50**0.5, share**0.5 * np.eye(12)]
    )
    right = np.concatenate([wanted.numpy() / 20**0.5, np.zeros((62, 9))])
    reference = np.linalg.lstsq(tall, right, rcond=None)[0].T
    edit = solve_edit(moments_of(keys, wanted), retained, retain_weight=weight, ridge=ridge, tolerance=0.0)
    dense = edit.factors.up.double() @ edit.factors.down.double()
    assert np.abs(dense.numpy() - reference).max() <= 1e-6 * np.abs(reference).max()


def test_the_cut_is_the_best_of_its_rank_for_the_inputs_at_hand() -> None:
    keys, wanted, others = samples(0, 20, 12), samples(1, 20, 9), samples(2, 50, 12)
    retained = others.T @ others / 50
    whole, cut = (
        solve_edit(
            moments_of(keys, wanted), retained, retain_weight=1.0, ridge=1e-6, tolerance=tolerance, rank=rank
        )
        for tolerance, rank in ((0.0, None), (0.0, 3))
    )
    system = keys.T @ keys / 20 + retained
    root = torch.linalg.cholesky(system + 1e-6 * system.diagonal().mean() * torch.eye(12))
    exact, low = (edit.factors.up.double() @ edit.factors.down.double() for edit in (whole, cut))
    singular = torch.linalg.svdvals(exact @ root)
    assert cut.factors.rank == 3
    assert float((exact - low).matmul(root).norm() ** 2) == pytest.approx(
        float((singular[3:] ** 2).sum()), rel=1e-4
    )
    assert cut.energy_kept == pytest.approx(float((singular[:3] ** 2).sum() / (singular**2).sum()), rel=1e-6)


def test_systems_that_cannot_be_trusted_are_refused() -> None:
    keys, wanted = samples(0, 20, 12), samples(1, 20, 9)
    broken = torch.eye(12, dtype=torch.float64)
    broken[0, 0] = torch.nan
    with pytest.raises(BadInput, match="NaN"):
        solve_edit(moments_of(keys, wanted), broken, retain_weight=1.0, ridge=1e-4, tolerance=0.0)
    flat = torch.zeros(12, 12, dtype=torch.float64)
    with pytest.raises(BadInput, match=r"ill-conditioned.*closed\.ridge"):
        solve_edit(moments_of(keys[:3], wanted[:3]), flat, retain_weight=1.0, ridge=1e-18, tolerance=0.0)


def solved(
    pipe: StableDiffusionPipeline, bank: IdentityBank, config: ForgetConfig, method: str
) -> tuple[Problem, Solution]:
    request = open_request(WHO, bank, config, None)
    problem = request.problem
    solve = find_method(method).solve
    assert solve is not None
    return problem, solve(
        problem,
        SolveContext(pipe, lambda modules: retained_second_moments(Session(pipe, bank), request, modules)),
        config,
    )


def conditions(pipe: StableDiffusionPipeline, embeddings: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return encode_embeddings(pipe.text_encoder, pipe.tokenizer, embeddings)


def test_the_edited_encoder_writes_the_anchor(
    pipe: StableDiffusionPipeline, bank: IdentityBank, fast: ForgetConfig
) -> None:
    problem, solution = solved(pipe, bank, fast.updated(EASY), "closed-encoder")
    person, anchor = conditions(pipe, problem.targets[0].forget), conditions(pipe, problem.anchors)
    with edited(pipe.text_encoder, solution.change):
        hooked = conditions(pipe, problem.targets[0].forget)
    with mounted(pipe, solution.change):
        loaded = conditions(pipe, problem.targets[0].forget)
    assert torch.allclose(hooked, loaded, atol=1e-5)  # what was solved for is what PEFT computes
    assert float((loaded - anchor).norm()) < 0.6 * float((person - anchor).norm())
    assert torch.equal(conditions(pipe, problem.targets[0].forget), person)


def test_keys_and_values_share_one_edit_of_the_condition(
    pipe: StableDiffusionPipeline, bank: IdentityBank, fast: ForgetConfig
) -> None:
    problem, solution = solved(pipe, bank, fast.updated(EASY), "closed-kv")
    person, anchor = conditions(pipe, problem.targets[0].forget), conditions(pipe, problem.anchors)
    for module, factors in solution.change.items():
        weight = layer_weight(pipe, module)
        edit = torch.linalg.pinv(weight.double()) @ factors.dense().double()
        assert torch.allclose(weight.double() @ edit, factors.dense().double(), atol=1e-5)  # dW = W M
        with torch.no_grad():
            after = person @ (weight + factors.dense()).T
            assert float((after - anchor @ weight.T).norm()) < 0.8 * float(
                ((person - anchor) @ weight.T).norm()
            )


@pytest.mark.parametrize("method", CLOSED)
def test_an_ordinary_adapter_folder(
    method: str, pipe: StableDiffusionPipeline, bank: IdentityBank, fast: ForgetConfig, tmp_path: Path
) -> None:
    config = fast.updated({"method": method, **EASY})
    result = forget(WHO, pipe, tmp_path / "out", bank=bank, config=config)
    assert result.receipt.method == method
    assert 0.99 < result.receipt.solution["kept_energy"] <= 1
    name = load_adapter(pipe, result.path)
    unload(pipe, [name])
    pipe.load_lora_weights(str(result.path), adapter_name="stock")
    assert pipe.get_active_adapters() == ["stock"]
    unload(pipe, ["stock"])
    again = forget(WHO, pipe, tmp_path / "again", bank=bank, config=config)
    weights = "pytorch_lora_weights.safetensors"
    assert (result.path / weights).read_bytes() == (again.path / weights).read_bytes()


def test_statistics_leave_out_whom_the_request_may_not_see(
    pipe: StableDiffusionPipeline, bank: IdentityBank, fast: ForgetConfig
) -> None:
    session, request = Session(pipe, bank), open_request(WHO, bank, fast, None)
    first = retained_second_moments(session, request, statistics_modules(pipe))
    (file,) = (cache_folder() / "retained").iterdir()
    kept = file.read_bytes()
    again = retained_second_moments(session, request, statistics_modules(pipe))
    assert file.read_bytes() == kept  # what is mapped from it is changed in memory alone
    everybody = request.problem.retain
    rows = everybody[torch.arange(len(everybody))]
    direct = second_moments(
        layer_inputs(pipe, statistics_modules(pipe), rows, torch.Generator().manual_seed(0))
    )
    for module, moment in direct.items():
        assert torch.allclose(first[module], moment, rtol=1e-5, atol=1e-7)
        assert torch.equal(first[module], again[module])
    assert file.stat().st_mode & 0o777 == 0o600
    file.write_bytes(file.read_bytes()[:100])
    measured_anew = retained_second_moments(session, request, statistics_modules(pipe))
    assert all(torch.allclose(value, first[module]) for module, value in measured_anew.items())


def test_another_person_shares_the_statistics(
    pipe: StableDiffusionPipeline, bank: IdentityBank, fast: ForgetConfig
) -> None:
    for who in (WHO, "person-004"):
        request = open_request(who, bank, fast, None)
        retained_second_moments(Session(pipe, bank), request, statistics_modules(pipe))
    assert len(list((cache_folder() / "retained").iterdir())) == 1
