"""Two processes over gloo give the loss curve and the weights of one with the same global batch."""

import os
import socket
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from piu_lora.config import ForgetConfig
from piu_lora.errors import BadInput, EnvironmentProblem
from piu_lora.jobs.training.launched import Launched, is_main, launched_workers
from piu_lora.model import attach, read_weights, trainable
from piu_lora.unlearn import SingleProcess, train
from piu_lora.unlearn.piu import PiuObjective
from tests.tiny import FAST, tiny_bank, tiny_pipeline
from tests.unlearn.test_loop import Line, config
from tests.unlearn.test_piu import make_problem, make_student


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def join(rank: int, count: int, port: int) -> None:
    os.environ.update(
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE=str(count),
        LOCAL_WORLD_SIZE=str(count),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
        ACCELERATE_USE_CPU="true",
    )
    torch.set_num_threads(1)


def work(rank: int, count: int, port: int, folder: str, total: int) -> None:
    join(rank, count, port)
    line, seen = Line(), []
    workers = launched_workers(torch.device("cpu"))
    assert isinstance(workers, Launched)
    assert (workers.rank, workers.count, is_main()) == (rank, count, rank == 0)
    own = line.loss
    line.loss = lambda draw: seen.append(len(draw.x)) or own(draw)  # type: ignore[func-returns-value, method-assign]
    history = train(line, [line.weight], config(batch=total, steps=6, clip=0.5), 7, workers=workers)
    stopped = workers.any(rank == 1)
    torch.save(
        {"weight": line.weight.detach(), "history": history, "seen": sum(seen), "stopped": stopped},
        f"{folder}/{rank}.pt",
    )


@pytest.mark.slow
@pytest.mark.parametrize("total", [8, 5])
def test_two_processes_are_one(tmp_path: Path, total: int) -> None:
    torch.multiprocessing.spawn(work, (2, free_port(), str(tmp_path), total), nprocs=2)
    alone = Line()
    history = train(alone, [alone.weight], config(batch=total, steps=6, clip=0.5), 7)
    results = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    assert sum(result["seen"] for result in results) == 6 * total
    assert all(result["seen"] >= 6 * (total // 2) for result in results)
    for result in results:
        torch.testing.assert_close(result["weight"], alone.weight.detach(), atol=1e-6, rtol=0)
        assert [terms["loss"] for terms in result["history"]] == pytest.approx(
            [terms["loss"] for terms in history], rel=1e-5
        )
        assert result["stopped"]
    assert torch.equal(results[0]["weight"], results[1]["weight"])


def train_unet(folder: Path, precision: str) -> None:
    """Three steps of the real objective on the tiny UNet, by whatever processes there are."""
    pipe, fast = tiny_pipeline(), ForgetConfig().updated_from_pairs(FAST)
    settings = fast.updated(
        {"train": {"precision": precision, "steps": 3, "batch": 5, "accumulation": 1, "clip": 1.0}}
    )
    attach(pipe.unet, settings.lora, "x", seed=0)
    workers = launched_workers(torch.device("cpu"))
    objective = PiuObjective(make_problem(tiny_bank()), make_student(pipe), settings)
    history = train(objective, trainable(pipe.unet), settings.train, 7, workers=workers)
    weights = torch.cat([value.flatten() for value in read_weights(pipe.unet, "x").values()])
    torch.save(
        {"weights": weights, "losses": [terms["loss"] for terms in history]},
        folder / f"{precision}-{workers.rank}.pt",
    )


def work_on_unet(rank: int, count: int, port: int, folder: str) -> None:
    join(rank, count, port)
    for precision in ("fp32", "fp16"):
        train_unet(Path(folder), precision)


@pytest.mark.slow
def test_two_processes_train_a_unet_like_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    torch.multiprocessing.spawn(work_on_unet, (2, free_port(), str(tmp_path)), nprocs=2)
    (tmp_path / "alone").mkdir()
    for precision, tolerance in (("fp32", 1e-5), ("fp16", 1e-2)):
        train_unet(tmp_path / "alone", precision)
        paths = [
            tmp_path / "alone" / f"{precision}-0.pt",
            *(tmp_path / f"{precision}-{rank}.pt" for rank in range(2)),
        ]
        alone, *together = (torch.load(path, weights_only=True) for path in paths)
        assert torch.equal(together[0]["weights"], together[1]["weights"])
        for result in together:
            assert result["losses"] == pytest.approx(alone["losses"], rel=tolerance)
            # AdamW's first steps have the size lr whatever the gradient: a rounding may turn the sign of one
            # that is nearly zero.
            assert (
                torch.nn.functional.cosine_similarity(result["weights"], alone["weights"], dim=0)
                > 1 - tolerance
            )


def test_one_process_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    workers = launched_workers(torch.device("cpu"))
    assert isinstance(workers, SingleProcess)
    values = torch.ones(2)
    workers.sum([values])
    assert torch.equal(values, torch.ones(2))
    assert workers.any(True)
    assert not workers.any(False)


def test_more_processes_than_samples() -> None:
    class Crowd(SingleProcess):
        count = 9

    line = Line()
    with pytest.raises(
        BadInput, match=r"train\.batch = 4 x train\.accumulation = 2 gives 8 samples a step for 9 processes"
    ):
        train(line, [line.weight], config(batch=4, accumulation=2), 0, workers=Crowd())


def test_processes_that_do_not_find_each_other_never_train_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    found = SimpleNamespace(process_index=0, num_processes=1, device=torch.device("mps"))
    monkeypatch.setattr("accelerate.PartialState", lambda **_options: found)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(
        EnvironmentProblem, match=r"2 processes were started, but accelerate joins 1 on mps; pass device=cpu"
    ):
        launched_workers(torch.device("mps"))


def test_a_launcher_that_started_fewer_is_told_of(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    # What `accelerate launch --cpu --num_processes 2` leaves behind.
    monkeypatch.setenv("ACCELERATE_USE_CPU", "True")
    monkeypatch.setenv("MASTER_PORT", "29500")
    assert isinstance(launched_workers(torch.device("cpu")), SingleProcess)
    assert "accelerate started one process" in caplog.text


@pytest.mark.parametrize(
    ("world", "rank", "main"), [(None, None, True), (None, "3", True), ("2", "0", True), ("2", "1", False)]
)
def test_the_main_process(
    monkeypatch: pytest.MonkeyPatch, world: str | None, rank: str | None, main: bool
) -> None:
    for name, value in (("WORLD_SIZE", world), ("RANK", rank)):
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    assert is_main() == main
