"""Threads: what the process may use, and that they sleep while they wait."""

import os
from pathlib import Path
from unittest import mock

import pytest
import torch

from piu_lora import threads


@pytest.mark.parametrize(
    ("content", "cores"),
    [("max 100000", 0), ("150000 100000", 2), ("50000 100000", 1), ("x", 0), ("-1 1", 0)],
)
def test_quota_of_a_control_group(tmp_path: Path, content: str, cores: int) -> None:
    (tmp_path / "cpu.max").write_text(content)
    assert threads._quota(tmp_path) == cores


def test_quota_of_the_first_version(tmp_path: Path) -> None:
    assert threads._quota(tmp_path) == 0
    (tmp_path / "cpu").mkdir()
    for name, value in (("quota", "300000"), ("period", "100000")):
        (tmp_path / "cpu" / f"cpu.cfs_{name}_us").write_text(f"{value}\n")
    assert threads._quota(tmp_path) == 3


def test_affinity_and_quota(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 3, 4}, raising=False)
    monkeypatch.setattr(threads, "_quota", lambda: 0)
    assert threads.usable() == 3
    monkeypatch.setattr(threads, "_quota", lambda: 2)
    assert threads.usable() == 2


def test_what_the_user_has_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "usable", lambda: 1)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    fresh: dict[str, str] = {}
    threads.wait_briefly(fresh)
    assert fresh == {"GOMP_SPINCOUNT": "10000", "OMP_NUM_THREADS": "1"}
    for stated in ({"OMP_WAIT_POLICY": "ACTIVE", "OMP_NUM_THREADS": "6"}, {"GOMP_SPINCOUNT": "5"}):
        environment = dict(stated)
        threads.wait_briefly(environment)
        assert environment == {"OMP_NUM_THREADS": "1", **stated}


def test_a_limit_is_lifted_again() -> None:
    with (
        mock.patch.object(torch, "get_num_threads", return_value=4),
        mock.patch.object(torch, "set_num_threads") as set_threads,
    ):
        for count in (0, 4, 9):
            with threads.limited(count):
                set_threads.assert_not_called()
        with pytest.raises(RuntimeError), threads.limited(1):
            raise RuntimeError
        assert [call.args for call in set_threads.call_args_list] == [(1,), (4,)]


def test_sessions_do_not_spin() -> None:
    import onnxruntime

    options = threads.without_spinning(onnxruntime.SessionOptions(), 3)
    assert options.intra_op_num_threads == 3
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"


def test_cores_that_others_use_are_not_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("psutil.cpu_count", lambda: 8)
    monkeypatch.setattr(threads, "usable", lambda: 6)
    for percent, cores in ((0.0, 6), (50.0, 4), (99.0, 1)):
        monkeypatch.setattr("psutil.cpu_percent", lambda seconds, percent=percent: percent)
        assert threads.idle() == cores
