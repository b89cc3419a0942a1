import pytest
import torch
from diffusers import StableDiffusionPipeline

from piu_lora import forget
from piu_lora.config import ForgetConfig
from piu_lora.errors import BadInput
from piu_lora.identity import IdentityBank
from piu_lora.jobs.request.request import open_request
from piu_lora.model import (
    adapters_disabled,
    encode_embeddings,
    encode_empty,
    encoder_adapter,
    read_weights,
    start_from,
    trainable,
)
from piu_lora.model.factors import Factors
from piu_lora.unlearn import TrainedModel
from piu_lora.unlearn.distil import DistilObjective
from tests.tiny import tiny_pipeline

WHO = "person-003"


def student_of(pipe: StableDiffusionPipeline, first: int = 3) -> TrainedModel:
    return TrainedModel(
        pipe.unet,
        lambda e: encode_embeddings(pipe.text_encoder, pipe.tokenizer, e),
        lambda: adapters_disabled(pipe.text_encoder),
        lambda *_: torch.empty(0),
        1000,
        lambda: encode_empty(pipe.text_encoder, pipe.tokenizer),
        first,
    )


def randomised(pipe: StableDiffusionPipeline) -> None:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in trainable(pipe.text_encoder):
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))


def test_loss_is_the_formula_by_hand(
    pipe: StableDiffusionPipeline, bank: IdentityBank, fast: ForgetConfig
) -> None:
    config = fast.updated({"distil": {"eta": 0.7, "retain_weight": 3.0, "empty_weight": 2.0}})
    problem = open_request([WHO, "person-011"], bank, config, None).problem
    model = student_of(pipe)
    plain = {name: model.encode(rows).detach() for name, rows in (("anchors", problem.anchors),)}
    with encoder_adapter(pipe.text_encoder, 4, "x", 0):
        randomised(pipe)
        objective = DistilObjective(problem, model, config)
        draw = objective.draw(6, torch.Generator().manual_seed(0))
        loss, terms = objective.loss(draw)
        after = {
            name: model.encode(rows).detach()
            for name, rows in (("forget", draw.forget), ("retain", draw.retain))
        }
        empty = encode_empty(pipe.text_encoder, pipe.tokenizer).detach()
    before = {
        name: model.encode(rows).detach() for name, rows in (("forget", draw.forget), ("retain", draw.retain))
    }
    anchors = plain["anchors"][draw.whose]
    wanted = 1.7 * anchors - 0.7 * before["forget"]
    forgotten = (after["forget"] - wanted)[:, 3:].square().mean()
    retained = (after["retain"] - before["retain"])[:, 3:].square().mean()
    blank = (empty - encode_empty(pipe.text_encoder, pipe.tokenizer).detach()).square().mean()
    assert float(loss.detach()) == pytest.approx(float(forgotten + 3 * retained + 2 * blank), rel=1e-4)
    assert terms["forget"] == pytest.approx(float(forgotten), rel=1e-4)
    assert min(float(forgotten), float(retained), float(blank)) > 1e-4


def test_the_retain_batch_holds_its_shares(
    pipe: StableDiffusionPipeline, bank: IdentityBank, fast: ForgetConfig
) -> None:
    config = fast.updated(
        {
            "retain": {"neighbours": 0.5, "near": 0.25, "near_pool": 3},
            "distil": {"anchors": 0.125, "neighbour_low": 0.95, "neighbour_high": 0.99},
        }
    )
    problem = open_request([WHO, "person-011"], bank, config, None).problem
    draw = DistilObjective(problem, student_of(pipe), config).draw(16, torch.Generator().manual_seed(0))
    assert int(((draw.retain @ problem.centres.T).amax(dim=1) > 0.949).sum()) == 8
    assert int(((draw.retain @ problem.anchors.T).amax(dim=1) > 0.9999).sum()) == 2
    near = problem.retain[problem.nearest(3).flatten()]
    assert int(((draw.retain @ near.T).amax(dim=1) > 0.9999).sum()) >= 4
    assert draw.whose.bincount().tolist() == [8, 8]


def test_shares_never_exceed_the_batch(
    pipe: StableDiffusionPipeline, bank: IdentityBank, fast: ForgetConfig
) -> None:
    """0.7 and 0.3 of five are 4 and 2 when each is rounded by itself."""
    config = fast.updated({"retain": {"neighbours": 0.7, "near": 0.3}, "distil": {"anchors": 0.3}})
    objective = DistilObjective(open_request(WHO, bank, config, None).problem, student_of(pipe), config)
    assert len(objective.draw(5, torch.Generator().manual_seed(0)).retain) == 5


def test_the_loss_of_a_half_precision_encoder_is_in_full(bank: IdentityBank, fast: ForgetConfig) -> None:
    pipe = tiny_pipeline()
    pipe.text_encoder.to(torch.bfloat16)
    objective = DistilObjective(open_request(WHO, bank, fast, None).problem, student_of(pipe), fast)
    loss, _ = objective.loss(objective.draw(4, torch.Generator().manual_seed(0)))
    assert objective.anchors.dtype == objective.empty.dtype == loss.dtype == torch.float32


def test_the_encoder_comes_back_without_wrappers(pipe: StableDiffusionPipeline) -> None:
    names = [name for name, _ in pipe.text_encoder.named_modules()]
    with encoder_adapter(pipe.text_encoder, 2, "x", 0):
        assert len(trainable(pipe.text_encoder)) == 2 * 6 * 2
    assert pipe.get_list_adapters() == {}
    assert [name for name, _ in pipe.text_encoder.named_modules()] == names


def test_a_start_is_where_training_begins(pipe: StableDiffusionPipeline, bank: IdentityBank) -> None:
    generator = torch.Generator().manual_seed(2)
    module = "encoder.layers.1.mlp.fc2"
    factors = Factors(torch.randn(3, 32, generator=generator), torch.randn(32, 3, generator=generator))
    with encoder_adapter(pipe.text_encoder, 4, "x", 0):
        start_from(pipe.text_encoder, "x", {module: factors})
        weights = read_weights(pipe.text_encoder, "x")
        dense = weights[f"{module}.lora_B.weight"] @ weights[f"{module}.lora_A.weight"]
        assert torch.allclose(dense, factors.dense(), atol=1e-5)
        assert bool(weights[f"{module}.lora_A.weight"][3].any())  # the free place can still learn
        with pytest.raises(BadInput, match=r"changes 'nowhere'.*train\.start"):
            start_from(pipe.text_encoder, "x", {"nowhere": factors})
    with encoder_adapter(pipe.text_encoder, 2, "x", 0):
        start_from(pipe.text_encoder, "x", {module: factors})
        assert read_weights(pipe.text_encoder, "x")[f"{module}.lora_B.weight"].shape == (32, 2)


@pytest.mark.parametrize(
    ("method", "start", "message"),
    [
        ("piu", "piu", "trained itself"),
        ("piu", "closed-encoder", "trains the unet alone"),
        ("piu", "nothing", "unknown method"),
    ],
)
def test_starts_that_do_not_fit(method, start, message, pipe, bank, fast, tmp_path) -> None:
    with pytest.raises(BadInput, match=message):
        forget(
            WHO,
            pipe,
            tmp_path / "out",
            bank=bank,
            config=fast.updated({"method": method, "train": {"start": start}}),
        )
    assert not list(tmp_path.iterdir())


def test_piu_starts_from_a_closed_form(pipe, bank, fast, tmp_path) -> None:
    config = fast.updated(
        {
            "train": {"start": "closed-kv", "steps": 1, "lr": 1e-9},
            "closed": {"near": 16, "rank": 2},
            "lora": {"rank": 4},
        }
    )
    warm = forget(WHO, pipe, tmp_path / "warm", bank=bank, config=config)
    closed = forget(WHO, pipe, tmp_path / "closed", bank=bank, config=config.updated({"method": "closed-kv"}))
    from piu_lora import read_adapter

    mine, theirs = (read_adapter(each.path).change for each in (warm, closed))
    for module, factors in theirs.items():
        scale = float(factors.dense().abs().max())
        assert torch.allclose(mine[module].dense(), factors.dense(), atol=0.02 * scale)


def test_unseen_photographs_are_imagined(
    pipe: StableDiffusionPipeline, bank: IdentityBank, fast: ForgetConfig
) -> None:
    def cosines(share: float) -> torch.Tensor:
        config = fast.updated({"distil": {"unseen": share, "unseen_low": 0.6}})
        problem = open_request(WHO, bank, config, None).problem
        draw = DistilObjective(problem, student_of(pipe), config).draw(64, torch.Generator().manual_seed(0))
        return draw.forget @ problem.centres[0]

    known, half = cosines(0.0), cosines(0.5)
    assert float(known.min()) > 0.8
    assert float(half[32:].min()) > 0.8
    assert 0.4 < float(half[:32].min()) < 0.8
