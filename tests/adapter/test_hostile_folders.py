"""Folders that somebody made to do harm, through every command that reads them: refused by name at once, and
the pipeline stays as it was.
"""

import json
import os
import shutil
import struct
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline

from piu_lora.adapter import Adapter, load_adapters, read_adapter
from piu_lora.adapter.inspect import describe_lora
from piu_lora.errors import PiuLoraError
from piu_lora.jobs.adapters.convert import convert_adapter
from piu_lora.jobs.evaluation.verify import verify_adapter
from piu_lora.jobs.stacks.members import open_members
from piu_lora.jobs.stacks.merge import merge_adapters
from tests.adapter.stacks import forward, sign, write_random

WEIGHTS, RECEIPT = "pytorch_lora_weights.safetensors", "forget.json"
SECONDS = 2.0  # of the processor


def changed_receipt(folder: Path, change: Callable[[dict], object]) -> None:  # type: ignore[type-arg]
    receipt = json.loads((folder / RECEIPT).read_text())
    change(receipt)
    (folder / RECEIPT).write_text(json.dumps(receipt))


def a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def without_end(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


def sparse(path: Path) -> None:
    with path.open("ab") as file:
        file.truncate(2**40)


def a_header_of_a_terabyte(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes(struct.pack("<Q", 2**40) + b"{}")
    sign(folder)


def overlapping_tensors(folder: Path) -> None:
    head = {
        f"unet.a.lora_{side}.weight": {"dtype": "F32", "shape": [2**40, 2**20], "data_offsets": [0, 4]}
        for side in "AB"
    }
    text = json.dumps(head).encode()
    (folder / WEIGHTS).write_bytes(struct.pack("<Q", len(text)) + text + bytes(4))
    sign(folder)


HOSTILE: dict[str, Callable[[Path], object]] = {
    "a receipt that is a pipe": lambda folder: a_pipe(folder / RECEIPT),
    "a receipt without end": lambda folder: without_end(folder / RECEIPT),
    "a receipt of a terabyte": lambda folder: sparse(folder / RECEIPT),
    "a receipt nested deeply": lambda folder: (folder / RECEIPT).write_text("[" * 200_000),
    "a receipt that is a folder": lambda folder: ((folder / RECEIPT).unlink(), (folder / RECEIPT).mkdir()),
    "a receipt that names a file elsewhere": lambda folder: changed_receipt(
        folder, lambda receipt: receipt["files"].update({"../../../../../etc/passwd": "0" * 64})
    ),
    "a receipt that names a hidden file": lambda folder: changed_receipt(
        folder, lambda receipt: receipt["files"].update({".git/config": "0" * 64})
    ),
    "a receipt with NaN": lambda folder: (folder / RECEIPT).write_text(
        (folder / RECEIPT).read_text().replace('"seed": ', '"x": NaN, "seed": ')
    ),
    "weights that are a pipe": lambda folder: a_pipe(folder / WEIGHTS),
    "weights without end": lambda folder: without_end(folder / WEIGHTS),
    "weights of a terabyte": lambda folder: sparse(folder / WEIGHTS),
    "a header of a terabyte": a_header_of_a_terabyte,
    "tensors that are not there": overlapping_tensors,
    "weights that are a pickle": lambda folder: (
        torch.save({"x": torch.zeros(1)}, folder / WEIGHTS),
        sign(folder),
    ),
}


@pytest.fixture(scope="module")
def good(pipe: StableDiffusionPipeline, tmp_path_factory: pytest.TempPathFactory) -> list[Adapter]:
    folder = tmp_path_factory.mktemp("good")
    return [write_random(pipe, folder / str(seed), seed, encoder=True) for seed in (1, 2)]


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_folder(
    pipe: StableDiffusionPipeline, good: list[Adapter], tmp_path: Path, kind: str
) -> None:
    folder, out = tmp_path / "hostile", tmp_path / "out"
    shutil.copytree(good[0].path, folder)
    HOSTILE[kind](folder)
    before = forward(pipe)
    commands: dict[str, Callable[[], object]] = {
        "verify": lambda: verify_adapter(folder, pipe),
        "merge": lambda: merge_adapters(open_members([good[1], folder]), out),
        "convert": lambda: convert_adapter(folder, "kohya", out),
        "generate": lambda: load_adapters(pipe, [good[1].path, folder]),
        "inspect": lambda: describe_lora(folder),
    }
    for name, command in commands.items():
        begun = time.process_time()
        try:
            answer = command()
        except PiuLoraError as error:
            answer = error
        assert time.process_time() - begun < SECONDS, name
        refused = isinstance(answer, PiuLoraError)
        if name == "verify" and not refused:
            assert answer.failure is not None  # type: ignore[attr-defined]
        elif name != "inspect":  # which tells what it can of any LoRA, and what the folder lacks
            assert refused, name
        assert not refused or len(str(answer)) < 1000
    assert not out.exists()
    assert torch.equal(forward(pipe), before)
    assert read_adapter(good[0].path).id == good[0].id
