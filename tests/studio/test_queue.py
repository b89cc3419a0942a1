"""One job at a time, told apart, cancelled where it stands."""

import threading
import time

import pytest

from piu_lora.errors import BadInput
from piu_lora.studio.queue import Cancelled, Job, WorkQueue


def settled(job: Job, seconds: float = 10) -> Job:
    end = time.monotonic() + seconds
    while job.active and time.monotonic() < end:
        time.sleep(0.01)
    assert not job.active
    return job


def test_jobs_run_one_after_the_other() -> None:
    queue, order, gate = WorkQueue(), [], threading.Event()

    def first(job: Job) -> None:
        gate.wait(10)
        order.append("first")

    one, two = Job("first", first), Job("second", lambda job: order.append("second"))
    queue.add(one)
    queue.add(two)
    assert queue.ahead(two) >= 1
    gate.set()
    settled(two)
    assert order == ["first", "second"]
    assert (one.state, two.state) == ("done", "done")
    queue.close()


def test_a_job_is_cancelled_at_its_next_step() -> None:
    queue, begun, steps = WorkQueue(), threading.Event(), []

    def work(job: Job) -> None:
        with job.progress("train", 1000) as advance:
            for step in range(1000):
                begun.set()
                time.sleep(0.01)
                advance(1, loss=1.0)
                steps.append(step)

    job = queue.add(Job("train", work))
    waiting = queue.add(Job("waits", lambda job: steps.append(-1)))
    begun.wait(10)
    queue.cancel(waiting)
    queue.cancel(job)
    assert settled(job).state == waiting.state == "cancelled"
    assert len(steps) < 1000
    assert -1 not in steps
    queue.close()


def test_what_goes_wrong_is_told_without_a_path() -> None:
    queue = WorkQueue()

    def bad(job: Job) -> None:
        raise BadInput("nobody of that name")

    def broken(job: Job) -> None:
        raise RuntimeError("/a/secret/place")

    one, two = queue.add(Job("bad", bad)), queue.add(Job("broken", broken))
    assert settled(one).error == "nobody of that name"
    assert settled(two).state == "failed"
    assert "secret" not in two.error
    queue.close()


def test_progress_counts_and_keeps_the_loss() -> None:
    job = Job("train", lambda job: None)
    with job.progress("train", 4) as advance:
        advance(1, loss=2.0, retain=1.0)
        advance(1, loss=1.0, retain=0.5)
    assert (job.label, job.count, job.total) == ("train", 2, 4)
    assert job.losses == [2.0, 1.0]
    assert job.left is not None
    job.cancel()
    with pytest.raises(Cancelled), job.progress("evaluate", 1):
        pass
