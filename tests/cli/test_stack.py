"""The commands about adapters, end to end on the embedded base with the adapters of the repository."""

import json
import shutil
from pathlib import Path

import pytest

from piu_lora.adapter import read_adapter
from tests.cli.test_cli import assert_refused
from tests.cli.test_cli import piu as run

ADAPTERS = Path(__file__).parent.parent.parent / "adapters"
SINGLE = sorted(str(path) for path in ADAPTERS.glob("mini-piu-*"))
MERGED = next(str(path) for path in ADAPTERS.glob("mini-refit-*"))


def test_check(tmp_path: Path) -> None:
    done = run(
        "stack",
        "check",
        *SINGLE[:2],
        "--out",
        tmp_path / "heat.png",
        "--people",
        "8",
        "--activations",
        "2",
        "--json",
    )
    assert done.returncode == 0
    facts = json.loads(done.stdout)
    assert len(facts["stacks"]) == 3
    assert (tmp_path / "heat.png").read_bytes().startswith(b"\x89PNG")
    over = run("stack", "check", *SINGLE[:2], "--people", "8", "--activations", "0", "--limit", "0.01")
    assert over.returncode == 1
    assert "over the limit" in over.stdout
    assert_refused(run("stack", "check", SINGLE[0], SINGLE[0]), "given twice")
    assert_refused(
        run("stack", "check", SINGLE[0], "--identity", "mini-0001", "--identity", "mini-0002"),
        "1 adapters, but 2 identities",
    )


def test_merge_withdraw_and_ledger(tmp_path: Path, own_ledger: Path) -> None:
    merged = run(
        "stack",
        "merge",
        *SINGLE,
        "--weight",
        "1",
        "--weight",
        "0.5",
        "--weight",
        "1",
        "--out",
        tmp_path / "m",
        "--json",
    )
    assert merged.returncode == 0
    facts = json.loads(merged.stdout)
    assert [member["weight"] for member in facts["members"]] == [1, 0.5, 1]
    leaving = read_adapter(SINGLE[1]).id
    stay = [part for each in (SINGLE[0], SINGLE[2]) for part in ("--member", each)]
    done = run("stack", "withdraw", tmp_path / "m", leaving, *stay, "--out", tmp_path / "n")
    assert done.returncode == 0
    assert [member["adapter_id"] for member in read_adapter(tmp_path / "n").receipt.members] == [
        read_adapter(SINGLE[i]).id for i in (0, 2)
    ]
    listed = json.loads(run("ledger", "list", "--json").stdout)["adapters"]
    assert {(each["adapter_id"], each["state"]) for each in listed} == {
        (facts["adapter_id"], "withdrawn"),
        (read_adapter(tmp_path / "n").id, "active"),
    }
    assert "mini-" not in run("ledger", "list").stdout.replace("arc2face-mini", "")
    assert run("ledger", "check", tmp_path).returncode == 0
    assert run("ledger", "show", read_adapter(tmp_path / "n").id[:6]).returncode == 0
    assert_refused(run("ledger", "withdraw", "ffff"), "knows no adapter 'ffff'")
    assert run("ledger", "export", "--out", tmp_path / "all.csv").returncode == 0
    shutil.rmtree(tmp_path / "n")
    assert run("ledger", "check").returncode == 1
    assert_refused(
        run("stack", "merge", *SINGLE, "--weight", "1", "--out", tmp_path / "x"), "3 adapters, but 1 weights"
    )
    negative = ("--weight", "1", "--weight", "-1", "--weight", "1")
    assert_refused(
        run("stack", "merge", *SINGLE, *negative, "--out", tmp_path / "x"),
        "-1.0 is below 0",
        "--allow-negative",
    )
    assert_refused(run("stack", "withdraw", SINGLE[0], leaving, "--out", tmp_path / "x"), "was not merged")
    assert not (tmp_path / "x").exists()


def test_fuse_and_generate(tmp_path: Path) -> None:
    assert (
        run("stack", "fuse", "mini", MERGED, "--out", tmp_path / "fused", "--dtype", "fp16").returncode == 0
    )
    drawing = ("--identity", "mini-0003", "--images", "1", "--steps", "2")
    done = run(
        "generate", "--base", tmp_path / "fused", "--bank", "mini", *drawing, "--out", tmp_path / "x.png"
    )
    assert done.returncode == 0, done.stderr
    twice = run(
        "generate",
        "--base",
        tmp_path / "fused",
        "--bank",
        "mini",
        *drawing,
        "--adapter",
        MERGED,
        "--out",
        tmp_path / "y.png",
    )
    assert_refused(twice, "other cross-attention")


def test_formats(tmp_path: Path) -> None:
    done = run("convert", SINGLE[0], "--to", "kohya", "--out", tmp_path / "k.safetensors")
    assert "exact" in done.stdout
    assert run("inspect", tmp_path / "k.safetensors").stdout.startswith("format     kohya")
    assert read_adapter(SINGLE[0]).id in run("inspect", SINGLE[0]).stdout
    assert run("resize", SINGLE[0], "--rank", "4", "--out", tmp_path / "small").returncode == 0
    assert json.loads(run("inspect", tmp_path / "small", "--json").stdout)["ranks"] == {"4": 24}
    assert_refused(run("resize", SINGLE[0], "--out", tmp_path / "none"), "pass --rank N")
    assert_refused(
        run("extract", "--dense", tmp_path / "k.safetensors", "--rank", "2", "--out", tmp_path / "none"),
        "no UNet of this base",
    )
    (tmp_path / "empty").mkdir()
    assert_refused(run("inspect", tmp_path / "empty"), "neither a LoRA file nor a folder")


def test_verify_and_list(tmp_path: Path) -> None:
    assert run("verify", MERGED).returncode == 0
    shutil.copytree(MERGED, tmp_path / "copy")
    (tmp_path / "copy" / "README.md").write_text("x")
    done = run("verify", tmp_path / "copy")
    assert done.returncode == 1
    assert "DIFFERS" in done.stdout
    assert len(json.loads(run("list", ADAPTERS, "--json").stdout)["adapters"]) >= 4
    assert_refused(run("list", tmp_path / "nothing"), "holds no adapter folders")


@pytest.mark.parametrize(
    "arguments", [("push", SINGLE[0], "tester/x"), ("pull", "tester/nothing", "--out", "x")]
)
def test_hub_errors_are_one_line(arguments: tuple[str, ...], tmp_path: Path) -> None:
    done = run(*arguments)
    assert done.returncode == 3
    assert len([line for line in done.stderr.splitlines() if line.startswith("error: ")]) == 1


def test_push_dry_run() -> None:
    done = run("push", SINGLE[0], "tester/x", "--dry-run")
    assert done.returncode == 0
    assert "pytorch_lora_weights.safetensors" in done.stdout
    assert "# Identity-unlearning adapter" in done.stdout
    assert "before_after" not in done.stdout
