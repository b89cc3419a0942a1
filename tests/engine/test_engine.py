"""Engines: the same results from all of them, workers that die, tasks that fail."""

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from piu_lora.engine import Engine, find_engine
from piu_lora.errors import BadInput, EnvironmentProblem
from tests.engine.jobs import Squares

NUMBERS = list(range(6))


def results(engine: Engine, job: Squares, numbers: list[int]) -> dict[int, int]:
    return {numbers[index]: value for index, (value, _) in engine.run(job, numbers)}


def test_alone_opens_once_and_only_for_something(tmp_path: Path) -> None:
    engine = find_engine()
    assert results(engine, Squares(tmp_path), []) == {}
    assert not list(tmp_path.iterdir())
    assert results(engine, Squares(tmp_path), NUMBERS) == {number: number**2 for number in NUMBERS}
    assert [path.name for path in tmp_path.iterdir()] == [f"opened-{os.getpid()}"]


def test_what_cannot_be_found() -> None:
    with pytest.raises(BadInput, match="engine = 'slurm' is unknown; known: processes, ray"):
        find_engine("slurm")
    with pytest.raises(BadInput, match=r"address = '10\.0\.0\.1' is of a Ray cluster"):
        find_engine("processes", 2, "10.0.0.1")


@pytest.mark.slow
def test_processes_open_once_each_and_replace_the_dead(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    engine = find_engine("processes", 2)
    with caplog.at_level(logging.WARNING):
        assert results(engine, Squares(tmp_path, fatal=3), NUMBERS) == {n: n**2 for n in NUMBERS}
    assert "a worker process died; its task is run again" in caplog.text
    assert os.getpid() not in {int(path.name.split("-")[1]) for path in tmp_path.glob("opened-*")}
    with pytest.raises(BadInput, match="number = -2 is negative"):
        results(engine, Squares(tmp_path), [1, -2])
    with pytest.raises(EnvironmentProblem, match="a worker process died 3 times"):
        results(engine, Squares(tmp_path, fatal=1, always=True), [1])


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """Two nodes of one processor each, on this machine.

    Ray takes 127.0.0.1 for the outer address, other loopback addresses for what they are.
    """
    pytest.importorskip("ray", reason="Ray is not installed")
    from ray.cluster_utils import Cluster

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    node = {"num_cpus": 1, "object_store_memory": 80 * 2**20, "include_dashboard": False}
    running = Cluster(
        initialize_head=True, head_node_args={**node, "node_ip_address": "127.0.0.2"}, shutdown_at_exit=True
    )
    running.add_node(**node, node_ip_address="127.0.0.2")
    yield running.address
    running.shutdown()


@pytest.mark.slow
def test_a_cluster_of_two_nodes_gives_the_same(
    cluster: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    engine = find_engine("ray", 0, cluster)
    with caplog.at_level(logging.WARNING):
        assert results(engine, Squares(tmp_path, fatal=3), NUMBERS) == {n: n**2 for n in NUMBERS}
    assert "a worker of the cluster died; its task is run again" in caplog.text
    with pytest.raises(BadInput, match="number = -2 is negative"):
        results(engine, Squares(tmp_path), [1, -2])
    with pytest.raises(EnvironmentProblem, match="died 3 times"):
        results(engine, Squares(tmp_path, fatal=1, always=True), [1])
    import ray

    assert not ray.is_initialized()


def test_a_cluster_that_is_not_there_says_so() -> None:
    pytest.importorskip("ray", reason="Ray is not installed")
    with pytest.raises(EnvironmentProblem, match=r"the Ray cluster '127\.0\.0\.1:1' cannot be reached"):
        list(find_engine("ray", 1, "127.0.0.1:1").run(Squares(Path()), [1]))
