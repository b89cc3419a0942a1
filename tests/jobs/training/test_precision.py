"""Half precision: what is cast, what stays whole, and what is refused."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline

from piu_lora import ForgetResult, forget, read_adapter
from piu_lora.config import ForgetConfig
from piu_lora.errors import BadInput
from piu_lora.identity import IdentityBank
from piu_lora.jobs.request import session as sessions
from piu_lora.jobs.training import train as training
from piu_lora.model import attention_digest, find_family, load_base, trainable
from piu_lora.model.factors import state_of
from tests.tiny import tiny_pipeline

WHO = "person-003"
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny base as a folder: a base given by name."""
    folder = tmp_path_factory.mktemp("base")
    tiny_pipeline().save_pretrained(folder)
    return folder


class Watch:
    """What the training loop was given, and what came out of it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        own_train, own_load = training.train, sessions.as_pipeline

        def train(*arguments: object, **keywords: object) -> list[dict[str, float]]:
            unet = self.pipe.unet
            self.adapter = {parameter.dtype for parameter in trainable(unet)}
            self.base = {p.dtype for n, p in unet.named_parameters() if ".lora_" not in n}
            self.encoder = {parameter.dtype for parameter in self.pipe.text_encoder.parameters()}
            self.history = own_train(*arguments, **keywords)  # type: ignore[arg-type]
            return self.history

        def load(*arguments: object, **keywords: object) -> StableDiffusionPipeline:
            self.pipe = own_load(*arguments, **keywords)  # type: ignore[arg-type]
            return self.pipe

        monkeypatch.setattr(training, "train", train)
        monkeypatch.setattr(sessions, "as_pipeline", load)


def settings(fast: ForgetConfig, precision: str) -> ForgetConfig:
    return fast.updated({"train": {"precision": precision}})


def flat(result: ForgetResult) -> torch.Tensor:
    return torch.cat(
        [value.float().flatten() for value in state_of(read_adapter(result.path).change).values()]
    )


@pytest.fixture(scope="module")
def plain(stored: Path) -> StableDiffusionPipeline:
    return load_base(stored, device="cpu")


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_base_by_name_is_cast_and_the_adapter_stays_whole(
    stored: Path,
    plain: StableDiffusionPipeline,
    trained: ForgetResult,
    bank: IdentityBank,
    fast: ForgetConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    precision: str,
) -> None:
    watch, half = Watch(monkeypatch), DTYPES[precision]
    result = forget(
        WHO, stored, tmp_path / precision, bank=bank, config=settings(fast, precision), device="cpu"
    )
    assert (watch.base, watch.encoder, watch.adapter) == ({half}, {half}, {torch.float32})
    # Cast after the digest was taken, else bfloat16 would make another base of it.
    assert result.receipt.base.attn2_sha256 == attention_digest(plain.unet)
    # The frozen weights are those that were loaded, cast once.
    after = watch.pipe.unet.state_dict()
    assert all(torch.equal(value.to(half), after[key]) for key, value in plain.unet.state_dict().items())
    assert all(math.isfinite(value) for terms in watch.history for value in terms.values())
    assert torch.nn.functional.cosine_similarity(flat(result), flat(trained), dim=0) > (
        0.98 if precision == "bf16" else 0.995
    )


@pytest.mark.slow
def test_losses_stay_close_to_full_precision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the embedded base: the tiny one, untrained, has losses as small as bfloat16's rounding."""
    few = {"train": {"steps": 3, "batch": 2}}
    short, curves = ForgetConfig.preset(find_family("mini"), "piu").updated(few), {}
    for name in DTYPES:
        watch = Watch(monkeypatch)
        forget(
            "mini-0007", "mini", tmp_path / name, config=settings(short, name), device="cpu", evaluate=False
        )
        curves[name] = [terms["loss"] for terms in watch.history]
    assert curves["bf16"] == pytest.approx(curves["fp32"], rel=0.04)
    assert curves["fp16"] == pytest.approx(curves["fp32"], rel=0.002)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_a_pipeline_keeps_its_own_dtype_and_its_bits(
    pipe: StableDiffusionPipeline, bank: IdentityBank, fast: ForgetConfig, tmp_path: Path, precision: str
) -> None:
    before = {key: value.clone() for key, value in pipe.unet.state_dict().items()}
    forget(WHO, pipe, tmp_path / "out", bank=bank, config=settings(fast, precision))
    after = pipe.unet.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) and after[key].dtype == torch.float32 for key in before)


def test_a_half_pipeline_trains_in_fp16(bank: IdentityBank, fast: ForgetConfig, tmp_path: Path) -> None:
    half = tiny_pipeline().to(dtype=torch.float16)
    before = {key: value.clone() for key, value in half.unet.state_dict().items()}
    result = forget(WHO, half, tmp_path / "out", bank=bank, config=settings(fast, "fp16"))
    assert result.receipt.base.attn2_sha256 == attention_digest(tiny_pipeline().unet)
    assert all(torch.equal(before[key], value) for key, value in half.unet.state_dict().items())


@pytest.mark.parametrize(
    ("dtype", "precision", "message"),
    [
        (torch.bfloat16, "bf16", r"in bfloat16, which has lost digits.*load it in float32"),
        (torch.bfloat16, "fp32", r"in bfloat16"),
        (torch.float16, "fp32", r"in torch\.float16, not train\.precision = 'fp32'; load it in float32"),
        (torch.float16, "bf16", r"in torch\.float16, not train\.precision = 'bf16'"),
    ],
)
def test_a_pipeline_that_does_not_fit_is_refused(
    bank: IdentityBank, fast: ForgetConfig, tmp_path: Path, dtype: torch.dtype, precision: str, message: str
) -> None:
    with pytest.raises(BadInput, match=message):
        forget(
            WHO,
            tiny_pipeline().to(dtype=dtype),
            tmp_path / "out",
            bank=bank,
            config=settings(fast, precision),
        )
    assert not (tmp_path / "out").exists()


def test_memory_savings_change_no_adapter(
    pipe: StableDiffusionPipeline,
    forget_fast: Callable[..., ForgetResult],
    trained: ForgetResult,
    tmp_path: Path,
) -> None:
    lean = {"gradient_checkpointing": True, "micro_batch": 1}
    frugal = forget_fast(tmp_path / "frugal", train=lean)
    assert not pipe.unet.is_gradient_checkpointing
    # Adam divides by the size of a gradient, so a rounding of near nothing may flip a weight's sign once.
    assert torch.nn.functional.cosine_similarity(flat(trained), flat(frugal), dim=0) > 0.9999
