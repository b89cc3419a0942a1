"""The paper's protocol: what it runs, and its tables; a rehearsal on the embedded base."""

import sys
from pathlib import Path

import pytest

from benchmarks import paper
from piu_lora.config import ForgetConfig
from piu_lora.jobs.arena.compare import contenders
from piu_lora.model import find_family


def test_the_official_protocol_is_what_is_run() -> None:
    config = paper.official("arc2face", 0.2, rehearse=False)
    assert (config.split.forget_held_out, config.split.retain_held_out, config.seed) == (0.35, 0.1, 42)
    assert (config.anchor.rule, config.anchor.tau, config.anchor.tolerance) == ("proximity", 0.2, 0.01)
    evaluation = config.evaluation
    assert (evaluation.forget_images, evaluation.retain_images, evaluation.steps, evaluation.guidance) == (
        25,
        25,
        25,
        3.0,
    )
    for rehearse in (False, True):
        for tau in (0.1, 0.2, 0.3):
            methods, variants = paper.plan(tau, rehearse=rehearse)
            for entrant in contenders(methods, variants=variants):
                entrant.settings(ForgetConfig(), find_family("mini"))
    methods, variants = paper.plan(0.2, rehearse=False)
    assert methods == list(paper.TABLE_1)
    assert "piu-dense eta=3" in variants
    assert "piu-dense retain_weight=0" in variants
    assert "piu-dense scope=full" in variants
    assert "piu-dense eta=1" not in variants  # that is the plain one


def test_the_published_figures_stand_beside_ours() -> None:
    text = paper.table("eta", {"0": (0.5, 1.0), "3": None})
    assert "| 0 | 0.72 | 0.50 | 0.95 | 1.00 |" in text
    assert "| 3 | 0.24 | - | 0.93 | - |" in text


@pytest.mark.slow
def test_a_rehearsal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    """A second run makes the same of what is there."""
    command = ["paper", "--base", "mini", "--rehearse", "--out", str(tmp_path / "paper")]
    monkeypatch.setattr(sys, "argv", command)
    paper.main()
    text = capsys.readouterr().out
    assert "| untouched | 1.00 | 1.00 | 1.00 | 1.00 |" in text
    run = ("| piu-dense ", "| uce-official ", "| 0 ", "| 0.1 ", "| 0.3 ", "| full ", "| surgical ")
    rows = [line for line in text.splitlines() if line.startswith(run)]
    assert len(rows) == 8
    assert not any(" - " in row for row in rows)
    paper.main()
    assert capsys.readouterr().out == text
