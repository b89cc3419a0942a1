"""Hostile adapter folders: only our own errors, no crash, no hang, no memory to speak of."""

import json
import random
import shutil
import struct
import subprocess
import sys
import textwrap
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from diffusers import StableDiffusionPipeline

from piu_lora import load_adapter, read_adapter
from piu_lora.adapter import describe_lora, unload
from piu_lora.adapter.folder import file_digest
from piu_lora.cli.inspect import screen
from piu_lora.errors import PiuLoraError
from piu_lora.jobs.evaluation.verify import verify_adapter
from tests.adapter.stacks import write_random
from tests.tiny import tiny_pipeline

STRANGE: list[Any] = [
    None,
    True,
    0,
    -1,
    10**30,
    1e308,
    float("nan"),
    "",
    "\x00",
    "\x1b[31m",
    "../../etc/passwd",
    "/etc/passwd",
    "x" * 5000,
    [],
    {},
    [[]],
    {"": {}},
    "unet.",
    "\ud800",
    ["unet.mid_block"],
    {"unet.r": 10**9},
]


def flip(data: bytearray, dice: random.Random) -> None:
    for _ in range(dice.randint(1, 8)):
        data[dice.randrange(len(data))] = dice.randrange(256)


def cut(data: bytearray, dice: random.Random) -> None:
    del data[dice.randrange(len(data)) :]


def insert(data: bytearray, dice: random.Random) -> None:
    place = dice.randrange(len(data))
    data[place:place] = dice.randbytes(dice.randint(1, 64))


def repeat(data: bytearray, dice: random.Random) -> None:
    start = dice.randrange(len(data))
    data[start:start] = data[start : start + dice.randint(1, 256)]


def deepen(data: bytearray, dice: random.Random) -> None:
    data[:] = b"[" * dice.choice([10, 100_000]) + data


BYTES: list[Callable[[bytearray, random.Random], None]] = [flip, cut, insert, repeat, deepen]


def mutate_json(value: Any, dice: random.Random) -> Any:
    """One value, somewhere inside, becomes something strange, is removed, or gets another key."""
    if isinstance(value, dict) and value and dice.random() < 0.85:
        key, changed = dice.choice(sorted(value)), dict(value)
        if dice.random() < 0.15:
            del changed[key]
        elif dice.random() < 0.15:
            changed[str(dice.choice(STRANGE))] = changed.pop(key)
        else:
            changed[key] = mutate_json(value[key], dice)
        return changed
    if isinstance(value, list) and value and dice.random() < 0.7:
        place = dice.randrange(len(value))
        return [*value[:place], mutate_json(value[place], dice), *value[place + 1 :]]
    return dice.choice(STRANGE)


def mutate_header(path: Path, dice: random.Random) -> None:
    """The JSON in front of the tensors, with a length that fits, or not."""
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    if dice.random() < 0.4:
        inner = (
            json.loads(header["__metadata__"]["lora_adapter_metadata"])
            if "lora_adapter_metadata" in header.get("__metadata__", {})
            else {}
        )
        header["__metadata__"] = {
            "format": "pt",
            "lora_adapter_metadata": json.dumps(mutate_json(inner, dice)),
        }
    else:
        header = mutate_json(header, dice)
    text = json.dumps(header).encode("utf-8", "surrogatepass")
    claimed = len(text) if dice.random() < 0.8 else dice.choice([0, 1, 2**31, 2**63, len(text) * 2])
    path.write_bytes(struct.pack("<Q", claimed) + text + data[8 + length :])


def sign(folder: Path) -> None:
    """Digests that fit, as an attacker would write them."""
    try:
        receipt = json.loads((folder / "forget.json").read_text())
        receipt["files"] = {name: file_digest(folder / name) for name in receipt["files"]}
        (folder / "forget.json").write_text(json.dumps(receipt))
    except (ValueError, OSError, TypeError, KeyError, AttributeError, RecursionError):
        return


def mutate(folder: Path, dice: random.Random) -> None:
    names = [
        "forget.json",
        "pytorch_lora_weights.safetensors",
        "peft-checkpoint/adapter_model.safetensors",
        "peft-checkpoint/adapter_config.json",
    ]
    path = folder / dice.choices(names, [5, 5, 2, 2])[0]
    kind = dice.random()
    if kind < 0.35:
        data = bytearray(path.read_bytes())
        dice.choice(BYTES)(data, dice)
        path.write_bytes(bytes(data))
    elif path.suffix == ".json":
        text = json.dumps(mutate_json(json.loads(path.read_text()), dice))
        path.write_text(text, errors="replace")
    else:
        mutate_header(path, dice)
    if dice.random() < 0.6:
        sign(folder)


@pytest.fixture(scope="module")
def small() -> StableDiffusionPipeline:
    """One level is enough for folders that hardly ever load, and ten thousand of them take minutes less."""
    return tiny_pipeline(levels=1)


@pytest.fixture
def short_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    """A probe of one sample: what holds of a damaged folder holds of it whatever is drawn of the adapter."""
    monkeypatch.setattr("piu_lora.evidence.probe.SAMPLES", 1)


def look_at_everything(folder: Path, pipe: StableDiffusionPipeline) -> list[str]:
    """Load, inspect and verify; the names of our own errors, everything else is let through."""
    outcomes = []

    def load() -> None:
        unload(pipe, [load_adapter(pipe, read_adapter(folder))])

    for job in (load, lambda: screen(describe_lora(folder)), lambda: verify_adapter(folder, pipe)):
        try:
            job()
            outcomes.append("fine")
        except PiuLoraError as error:
            outcomes.append(type(error).__name__)
    return outcomes


def attack(original: Path, work: Path, pipe: StableDiffusionPipeline, seeds: range) -> dict[str, int]:
    seen: dict[str, int] = {}
    for seed in seeds:
        shutil.rmtree(work, ignore_errors=True)
        shutil.copytree(original, work)
        mutate(work, random.Random(seed))
        begun = time.thread_time()
        try:
            outcomes = look_at_everything(work, pipe)
        except Exception as error:
            raise AssertionError(f"seed {seed}: {type(error).__name__}: {error}") from error
        assert time.thread_time() - begun < 3, f"seed {seed} took too long for load, inspect and verify"
        for outcome in outcomes:
            seen[outcome] = seen.get(outcome, 0) + 1
    assert not pipe.get_list_adapters()
    return seen


@pytest.mark.slow
@pytest.mark.usefixtures("short_probe")
def test_some_mutated_folders(small: StableDiffusionPipeline, tmp_path: Path) -> None:
    write_random(small, tmp_path / "original", 1, encoder=True, every=5)
    seen = attack(tmp_path / "original", tmp_path / "work", small, range(150))
    assert seen["BadInput"] > 100  # the mutations do reach something
    assert seen["fine"] > 50  # and not everything dies at the door


@pytest.mark.slow
@pytest.mark.usefixtures("short_probe")
@pytest.mark.parametrize("first", range(1_000, 11_000, 1_000))  # in parts, each with a time limit of its own
def test_ten_thousand_mutated_folders(small: StableDiffusionPipeline, tmp_path: Path, first: int) -> None:
    write_random(small, tmp_path / "original", 1, encoder=True, every=5)
    print(attack(tmp_path / "original", tmp_path / "work", small, range(first, first + 1_000)))  # noqa: T201


def test_receipts_cost_little_memory(pipe: StableDiffusionPipeline, tmp_path: Path) -> None:
    """A receipt that names a million files, or nests deeply, takes no more than a few times its own size."""
    write_random(pipe, tmp_path / "a", 1)
    for text in (
        "[" * 1_000_000,
        '{"format":' * 100_000,
        '{"format": "piu_lora.adapter/1", "files": ' + "9" * 1_000_000 + "}",
    ):
        (tmp_path / "a" / "forget.json").write_text(text)
        tracemalloc.start()
        with pytest.raises(PiuLoraError):
            read_adapter(tmp_path / "a")
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 8 * len(text) + 1e6


READ = textwrap.dedent("""
    import sys
    from pathlib import Path
    from piu_lora import read_adapter
    from piu_lora.adapter import describe_lora
    import piu_lora.jobs.evaluation.verify, torch, diffusers
    def peak():  # of this program alone: ru_maxrss remembers the one that started it
        return int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])
    before = peak()
    job = {"read": read_adapter, "inspect": describe_lora}[sys.argv[2]]
    job(Path(sys.argv[1]))
    print((peak() - before) * 1024)
""")


@pytest.mark.slow
@pytest.mark.parametrize("job", ["read", "inspect"])
def test_large_adapters_take_less_than_twice_their_size(tmp_path: Path, job: str) -> None:
    import torch

    from piu_lora.adapter import BaseRef, Factors, Receipt, write_adapter

    change = {f"unet.layer{i}": Factors(torch.randn(1000, 2000), torch.randn(2000, 1000)) for i in range(40)}
    (tmp_path / "a").mkdir()
    write_adapter(tmp_path / "a", change, Receipt(BaseRef("x", "x", "0"), "piu", {}))
    size = (tmp_path / "a" / "pytorch_lora_weights.safetensors").stat().st_size
    done = subprocess.run(
        [sys.executable, "-c", READ, str(tmp_path / "a"), job], capture_output=True, text=True, check=True
    )
    print(f"{job}: {int(done.stdout) / size:.2f} x {size / 1e6:.0f} MB")  # noqa: T201
    assert int(done.stdout) < 2 * size
