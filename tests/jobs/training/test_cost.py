import contextlib
import sys
import time

import pytest

from piu_lora.jobs.training.cost import measure_cost

linux = pytest.mark.skipif(sys.platform != "linux", reason="the kernel's high-water mark")
MB = 1_000_000


def fill(megabytes: int) -> list[bytearray]:
    """In pieces too small for a mapping of their own: freed, they stay with the process."""
    return [bytearray(10_000) for _ in range(100 * megabytes)]


@linux
def test_memory_that_was_freed_before_is_seen_when_it_is_used_again() -> None:
    before = fill(80)
    kept = bytearray(10_000)  # on top of the heap, so that freeing alone gives nothing back
    del before
    with measure_cost() as result:
        again = fill(60)
    del again, kept
    assert result.peak_bytes is not None
    assert 55 * MB < result.peak_bytes < 90 * MB


@linux
def test_a_short_peak_is_not_missed_and_what_is_held_does_not_count() -> None:
    held = bytearray(200 * MB)
    with measure_cost() as result:
        assert len(b"x" * (50 * MB)) == 50 * MB
    with measure_cost() as nothing:
        pass
    assert len(held) == 200 * MB
    assert result.peak_bytes is not None
    assert 45 * MB < result.peak_bytes < 80 * MB
    assert nothing.peak_bytes is not None
    assert nothing.peak_bytes < 10 * MB


def test_seconds_are_those_of_the_work_even_if_it_fails() -> None:
    def fail() -> None:
        time.sleep(0.05)
        raise ValueError("no")

    with contextlib.suppress(ValueError), measure_cost() as result:
        fail()
    assert 0.05 <= result.seconds < 1
