import hashlib
import os
import signal
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline

from piu_lora import ForgetResult, forget, load_adapter, read_adapter
from piu_lora.adapter import unload
from piu_lora.config import ForgetConfig
from piu_lora.errors import BadInput, Incompatible, TrainingFailed
from piu_lora.identity import IdentityBank, RecognizerId, normalize
from piu_lora.model.factors import state_of
from piu_lora.progress import silent
from tests.disks import small_disk
from tests.tiny import FAST

WHO = "person-003"
WEIGHTS = "pytorch_lora_weights.safetensors"


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_adapter_loads_and_the_pipeline_comes_back_clean(
    pipe: StableDiffusionPipeline, bank: IdentityBank, fast: ForgetConfig, tmp_path: Path
) -> None:
    before = {key: value.clone() for key, value in pipe.unet.state_dict().items()}
    result = forget(WHO, pipe, tmp_path / "out", bank=bank, config=fast)
    after = pipe.unet.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert result.evaluation is None
    assert result.receipt.counts == {
        "forget_train": 4,
        "forget_held_out": 2,
        "retain_train": 36,
        "retain_held_out": 3,
    }
    name = load_adapter(pipe, result.path)
    unload(pipe, [name])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


def test_same_command_same_bytes(
    forget_fast: Callable[..., ForgetResult], trained: ForgetResult, tmp_path: Path
) -> None:
    again = forget_fast(tmp_path / "again").path
    other = forget_fast(tmp_path / "other", seed=1).path
    assert digest(trained.path / WEIGHTS) == digest(again / WEIGHTS)
    assert digest(trained.path / WEIGHTS) != digest(other / WEIGHTS)


@pytest.mark.usefixtures("drawn")
def test_nothing_in_the_folder_names_the_person(
    pipe: StableDiffusionPipeline,
    bank: IdentityBank,
    fast: ForgetConfig,
    trained: ForgetResult,
    tmp_path: Path,
) -> None:
    source = tmp_path / "jane-doe-embeddings.npy"
    np.save(source, bank.of(WHO).numpy())
    folders = [trained.path, forget(source, pipe, tmp_path / "by-file", bank=bank, config=fast).path]
    vectors = [*bank.of(WHO), normalize(bank.of(WHO).mean(0, keepdim=True))[0]]
    needles = [WHO.encode(), b"jane-doe", str(tmp_path).encode(), str(trained.path).encode()]
    # A quarter of a vector is enough to be found by, in any of the formats a tensor may be written in.
    needles += [
        v[:4].to(kind).numpy().tobytes()
        for v in vectors
        for kind in (torch.float16, torch.float32, torch.float64)
    ]
    needles += [f"{float(v[0]):.6f}".encode() for v in vectors]
    for folder in folders:
        for path in folder.rglob("*"):
            content = path.read_bytes() if path.is_file() else b""
            for needle in needles:
                assert needle not in content, f"{path.name} holds {needle!r}"
                assert needle not in path.name.encode()


LONGER = {"train": {"steps": 4, "checkpoint_every": 2}}


@pytest.fixture(scope="module")
def whole(
    pipe: StableDiffusionPipeline, bank: IdentityBank, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A longer run that nothing stopped."""
    config = ForgetConfig().updated_from_pairs(FAST).updated(LONGER)
    return forget(WHO, pipe, tmp_path_factory.mktemp("whole") / "out", bank=bank, config=config).path


@pytest.mark.parametrize("stop", [1, 3])
def test_ctrl_c_leaves_a_checkpoint_that_resumes_bit_identically(
    pipe: StableDiffusionPipeline,
    bank: IdentityBank,
    fast: ForgetConfig,
    whole: Path,
    tmp_path: Path,
    stop: int,
) -> None:
    longer = fast.updated(LONGER)

    @contextmanager
    def interrupting(label: str, total: int, done: int = 0):
        steps = [done]

        def advance(count: int = 1, **terms: float) -> None:
            steps[0] += count
            if label == "train" and steps[0] == stop:
                os.kill(os.getpid(), signal.SIGINT)

        yield advance

    with pytest.raises(KeyboardInterrupt):
        forget(WHO, pipe, tmp_path / "out", bank=bank, config=longer, progress=interrupting)
    checkpoint = tmp_path / ".out.checkpoint"
    assert checkpoint.stat().st_mode & 0o777 == 0o600
    assert not (tmp_path / "out").exists()
    assert not pipe.get_list_adapters()
    with pytest.raises(BadInput, match="resume=True to go on"):
        forget(WHO, pipe, tmp_path / "out", bank=bank, config=longer)
    with pytest.raises(BadInput, match="other settings or another identity"):
        forget("person-004", pipe, tmp_path / "out", bank=bank, config=longer, resume=True)
    resumed = forget(WHO, pipe, tmp_path / "out", bank=bank, config=longer, resume=True).path
    assert digest(whole / WEIGHTS) == digest(resumed / WEIGHTS)
    assert not checkpoint.exists()


def test_bf16_trains_much_the_same(
    forget_fast: Callable[..., ForgetResult], trained: ForgetResult, tmp_path: Path
) -> None:
    half = forget_fast(tmp_path / "half", train={"precision": "bf16"}).path
    weights = [
        torch.cat([v.float().flatten() for v in state_of(read_adapter(path).change).values()])
        for path in (trained.path, half)
    ]
    assert not torch.equal(*weights)
    assert torch.nn.functional.cosine_similarity(*weights, dim=0) > 0.99


def test_nan_leaves_nothing(
    pipe: StableDiffusionPipeline, bank: IdentityBank, fast: ForgetConfig, tmp_path: Path
) -> None:
    wild = fast.updated({"train": {"lr": 1e30, "steps": 30}})
    with pytest.raises(TrainingFailed, match="nothing was written"):
        forget(WHO, pipe, tmp_path / "out", bank=bank, config=wild)
    assert not (tmp_path / "out").exists()


def test_bank_of_another_recognizer_names_both(
    pipe: StableDiffusionPipeline, bank: IdentityBank, fast: ForgetConfig, tmp_path: Path
) -> None:
    foreign = IdentityBank(bank.embeddings, bank.labels, bank.ids, RecognizerId("someone-else", "ff" * 32))
    with pytest.raises(Incompatible, match=r"'someone-else'.*'tiny'"):
        forget(WHO, pipe, tmp_path / "out", bank=foreign, config=fast)


def test_bank_of_another_width(
    pipe: StableDiffusionPipeline, bank: IdentityBank, fast: ForgetConfig, tmp_path: Path
) -> None:
    narrow = IdentityBank(normalize(bank.embeddings[:, :8]), bank.labels, bank.ids, bank.recognizer)
    with pytest.raises(Incompatible, match=r"width 8.*takes 16"):
        forget(WHO, pipe, tmp_path / "out", bank=narrow, config=fast)


def test_one_embedding_is_on_both_sides(
    pipe: StableDiffusionPipeline,
    bank: IdentityBank,
    fast: ForgetConfig,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    np.save(tmp_path / "one.npy", torch.randn(16).numpy())
    counts = forget(tmp_path / "one.npy", pipe, tmp_path / "out", bank=bank, config=fast).receipt.counts
    assert (counts["forget_train"], counts["forget_held_out"]) == (1, 1)
    assert "evaluating on the training embeddings" in caplog.text


def test_a_person_already_in_the_bank_is_not_retained(
    pipe, bank, fast, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    np.save(tmp_path / "again.npy", bank.of(WHO).numpy())
    result = forget(
        tmp_path / "again.npy",
        pipe,
        tmp_path / "out",
        bank=bank,
        config=fast.updated_from_pairs(["split.same_person=0.9"]),
    )
    assert result.receipt.counts["retain_train"] + result.receipt.counts["retain_held_out"] == len(bank) - 1
    assert "left out" in caplog.text
    assert WHO not in caplog.text


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a tmpfs needs root")
def test_full_disk_leaves_no_adapter(
    pipe: StableDiffusionPipeline, bank: IdentityBank, fast: ForgetConfig, tmp_path: Path
) -> None:
    from piu_lora.errors import EnvironmentProblem

    with small_disk(tmp_path / "small", "32k") as small:
        with pytest.raises(EnvironmentProblem, match="disk is full"):
            forget(WHO, pipe, small / "out", bank=bank, config=fast, progress=silent)
        assert not (small / "out").exists()
