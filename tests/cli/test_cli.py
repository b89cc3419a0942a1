"""The real command line on the embedded base: its own entry point, in a process of its own where that
matters.
"""

import contextlib
import io
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from piu_lora.adapter import open_adapter
from piu_lora.cli.app import main
from piu_lora.evidence.report import read_report
from piu_lora.identity import IdentityBank
from piu_lora.model import mini
from tests.disks import small_disk
from tests.tiny import tiny_bank

SETTINGS = ("method=piu", "train.steps=2", "train.batch=2", "train.accumulation=1")
QUICK = [*(part for pair in SETTINGS for part in ("--set", pair)), "--no-evaluate"]


@dataclass
class Result:
    returncode: int
    stdout: str
    stderr: str


def piu(*arguments: object) -> Result:
    """The console script's entry point, in this process: importing the libraries anew costs seconds each
    time.
    """
    out, err, code = io.StringIO(), io.StringIO(), 0
    line = mock.patch.object(sys, "argv", ["piu-lora", *map(str, arguments)])
    with line, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
        except SystemExit as stop:
            code = int(stop.code or 0)
    return Result(code, out.getvalue(), err.getvalue())


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "piu_lora.cli", *map(str, arguments)]


def forget(out: Path, *arguments: object, identity: object = "mini-0007") -> Result:
    return piu("forget", "--identity", identity, "--out", out, *QUICK, *arguments)


def assert_refused(result: Result, *parts: str, code: int = 2) -> None:
    """One clear error on stderr, nothing on stdout, no traceback."""
    assert result.returncode == code, result.stderr
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    errors = [line for line in result.stderr.splitlines() if line.startswith("error:")]
    assert len(errors) == 1, result.stderr
    for part in parts:
        assert part in errors[0]


def test_help_answers_in_about_a_second() -> None:
    times = []
    for arguments in (["--help"], ["forget", "--help"], ["--version"]):
        begun = time.perf_counter()
        subprocess.run(command(*arguments), check=True, capture_output=True)
        times.append(time.perf_counter() - begun)
    assert min(times) < 1.5


def test_help_imports_no_model_library() -> None:
    heavy = "{'torch', 'diffusers', 'transformers', 'numpy'}"
    code = f"import sys, piu_lora.cli.app; print(sorted({heavy} & set(sys.modules)))"
    assert (
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout.strip()
        == "[]"
    )


def test_forget_generate_evaluate(tmp_path: Path) -> None:
    """The whole way, short: folder, JSON result, grid, report, exit 1 on a missed threshold."""
    small = [
        part
        for key, value in (
            ("train.steps", 2),
            ("train.batch", 2),
            ("train.accumulation", 1),
            ("evaluation.forget_images", 2),
            ("evaluation.retain_images", 2),
            ("evaluation.nearest", 1),
            ("evaluation.anchor_images", 1),
            ("evaluation.steps", 2),
        )
        for part in ("--set", f"{key}={value}")
    ]
    out = tmp_path / "adapter"
    # Two steps of piu forget hardly anything, so that a limit can be missed.
    made = piu("forget", "--identity", "mini-0007", "--method", "piu", "--out", out, "--json", *small)
    assert made.returncode == 0, made.stderr
    result = json.loads(made.stdout)
    assert set(result["evaluation"]["recognizers"]) == {"conditioning", "evaluating"}
    assert (out / "report" / "before_after.png").exists()
    report = read_report(out / "report" / "report.json")
    assert report.public
    assert (
        report.adapter.weights_sha256 == open_adapter(out).receipt.files["pytorch_lora_weights.safetensors"]
    )
    assert report.evaluation is not None
    assert report.evaluation.recognizers.keys() == result["evaluation"]["recognizers"].keys()
    assert (out / "pytorch_lora_weights.safetensors").stat().st_size < 1e6

    grid = piu(
        "generate",
        "--identity",
        "mini-0007",
        "--identity",
        "mini-0008",
        "--adapter",
        out,
        "--images",
        2,
        "--steps",
        4,
        "--out",
        tmp_path / "grid.png",
    )
    assert grid.returncode == 0, grid.stderr
    assert (tmp_path / "grid.png").stat().st_size > 1000

    lean = ("--set", "report.leak_images=0", "--set", "report.sweep_images=0")
    again = piu("evaluate", out, "--identity", "mini-0007", "--out", tmp_path / "report", "--json", *lean)
    assert again.returncode == 0, again.stderr
    first = result["evaluation"]["recognizers"]["evaluating"]["ism"]["forget"]["after"]
    assert json.loads(again.stdout)["evaluation"]["recognizers"]["evaluating"]["ism"]["forget"][
        "after"
    ] == pytest.approx(first, abs=1e-3)

    shorter = (*lean, "--set", "evaluation.steps=1")
    failed = piu("evaluate", out, "--identity", "mini-0007", "--max-forget", "0.01", *shorter)
    assert failed.returncode == 1
    assert "missed: conditioning: likeness (ISM) of the forgotten person" in failed.stderr
    assert "recognizer" in failed.stdout


def test_unknown_identity_suggests(tmp_path: Path) -> None:
    assert_refused(
        forget(tmp_path / "out", identity="mini-00077"), "'mini-00077'", "did you mean", "mini-0077"
    )


def test_one_embedding_is_allowed_and_says_what_it_costs(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    np.save(tmp_path / "one.npy", mini.conditioning_bank().of("mini-0001")[0].numpy())
    assert forget(tmp_path / "out", identity=tmp_path / "one.npy").returncode == 0
    assert "a single photograph or embedding: nothing can be held out" in caplog.text
    assert (
        "evaluating on the training embeddings: the figures say less about other photographs" in caplog.text
    )


def corrupt_bank(path: Path) -> None:
    source = mini.conditioning_bank()
    embeddings = source.embeddings.clone()
    embeddings[17] = float("nan")
    names = ("embeddings", "labels", "ids")
    ids = torch.frombuffer(bytearray("\n".join(source.ids).encode()), dtype=torch.uint8)
    with safe_open(str(mini.folder().parent / "bank.safetensors"), framework="pt") as file:
        header = file.metadata()
    save_file(dict(zip(names, (embeddings, source.labels, ids), strict=True)), path, metadata=header)


def test_nan_bank(tmp_path: Path) -> None:
    corrupt_bank(tmp_path / "bad.safetensors")
    assert_refused(forget(tmp_path / "out", "--bank", tmp_path / "bad.safetensors"), "NaN", "embedding 17")


def test_bank_of_another_recognizer(tmp_path: Path) -> None:
    tiny_bank().save(tmp_path / "other.safetensors")
    result = forget(tmp_path / "out", "--bank", tmp_path / "other.safetensors", identity="person-001")
    assert_refused(result, "'tiny'", "'mini-conditioning'")


def test_truncated_bank(tmp_path: Path) -> None:
    content = (mini.folder().parent / "bank.safetensors").read_bytes()
    (tmp_path / "half.safetensors").write_bytes(content[: len(content) // 2])
    assert_refused(forget(tmp_path / "out", "--bank", tmp_path / "half.safetensors"), "cannot read the bank")


def test_existing_output_is_kept(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "note.txt").write_text("mine")
    assert_refused(forget(tmp_path / "out"), "exists already", "--force")
    assert_refused(forget(tmp_path / "out", "--force"), "holds no forget.json")
    assert (tmp_path / "out" / "note.txt").read_text() == "mine"


def test_unwritable_output() -> None:
    assert_refused(forget(Path("/proc/piu-lora/out")), "cannot write", "choose a folder", code=3)


@pytest.mark.parametrize(
    ("setting", "parts"),
    [
        ("train.stepz=5", ("'train.stepz'", "did you mean train.steps?")),
        ("lora.rank=-4", ("lora.rank = -4", "expected 1 or more")),
        ("anchor.tau=1.5", ("anchor.tau = 1.5", "expected -1 <= value <= 1")),
        ("train.steps=many", ("train.steps = 'many'", "expected int")),
        ("train.steps", ("'train.steps'", "section.key=value")),
        ("anchor.rule=closest", ("'closest'", "proximity")),
        (
            "method=piuu",
            (
                "'piuu'",
                "known: closed-both, closed-encoder, closed-kv, ",
                "distil-encoder, gate-both, gate-encoder, piu",
            ),
        ),
        ("anchor.tau=0.99", ("0 lie within 0.05", "anchor.on_empty=widen")),
    ],
)
def test_bad_settings(tmp_path: Path, setting: str, parts: tuple[str, ...]) -> None:
    assert_refused(forget(tmp_path / "out", "--set", setting), *parts)
    assert list(tmp_path.iterdir()) == []


def test_bad_base_and_adapter(tmp_path: Path) -> None:
    assert_refused(
        forget(tmp_path / "out", "--base", tmp_path / "nothing"), "there is no base", "no folder of that name"
    )
    assert_refused(forget(tmp_path / "out", "--base", tmp_path, "--bank", "mini"), "neither model_index.json")
    refused = piu("generate", "--identity", "mini-0001", "--adapter", tmp_path, "--out", tmp_path / "x.png")
    assert_refused(refused, "not an adapter folder")


def test_adapter_of_another_base(adapter_folder: Path, tmp_path: Path) -> None:
    refused = piu(
        "generate", "--identity", "mini-0001", "--adapter", adapter_folder, "--out", tmp_path / "x.png"
    )
    assert_refused(refused, "'tiny'", "'arc2face-mini'")
    assert not (tmp_path / "x.png").exists()


def test_truncated_adapter(adapter_folder: Path, tmp_path: Path) -> None:
    weights = adapter_folder / "pytorch_lora_weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    refused = piu(
        "generate", "--identity", "mini-0001", "--adapter", adapter_folder, "--out", tmp_path / "x.png"
    )
    assert_refused(refused, "truncated or changed", "pytorch_lora_weights.safetensors")


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a tmpfs needs root")
def test_full_disk(tmp_path: Path) -> None:
    with small_disk(tmp_path / "small", "200k") as small:
        assert_refused(forget(small / "out"), "disk is full", code=3)
        assert not [path for path in small.iterdir() if path.name != ".out.checkpoint"]


@pytest.mark.slow
def test_two_runs_at_once_leave_one_adapter(tmp_path: Path) -> None:
    line = command(
        "forget", "--identity", "mini-0007", "--out", tmp_path / "out", *QUICK, "--set", "train.steps=10"
    )
    runs = [
        subprocess.Popen(line, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) for _ in range(2)
    ]
    errors = [run.communicate(timeout=300)[1] for run in runs]
    assert sorted(run.returncode for run in runs) in ([0, 2], [0, 3])
    assert any("another run is writing" in error or "exists already" in error for error in errors)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_bank_show_and_export(tmp_path: Path) -> None:
    facts = json.loads(piu("bank", "show", "--json", "--out", tmp_path / "cosines.png").stdout)
    assert facts["identities"] >= 1000
    assert facts["per_identity"]["min"] >= 8
    assert facts["norms"]["max"] - facts["norms"]["min"] < 0.01  # stored in half precision
    assert facts["same_person"]["median"] > 0.9 > 0.5 > facts["different_people"]["median"]
    assert facts["anchors"]["share_without"] < 0.01
    assert (tmp_path / "cosines.png").read_bytes().startswith(b"\x89PNG")
    assert piu("bank", "export", "mini-0001", "--out", tmp_path / "one.npy").returncode == 0
    bank: IdentityBank = mini.conditioning_bank()
    assert np.allclose(np.load(tmp_path / "one.npy"), bank.of("mini-0001").numpy())
    assert (tmp_path / "one.npy").stat().st_mode & 0o777 == 0o600
