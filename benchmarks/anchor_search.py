"""Choosing the anchor in a bank of a million people: seconds, and memory above the loaded bank.

Run from the repository's root:

    python -m benchmarks.anchor_search [--identities N] [--out FILE.json] [--markdown FILE.md]

The bank is synthetic, with the geometry measured on real faces: the spread of the axes falls off as exp(-i /
190), and a shared direction takes 15 % of the norm. It is written in half precision, and loaded memory-mapped
in a fresh process, once for ``choose_anchor`` and once for the product with a copy in float32. What both only
map of the file is not theirs: memory is counted as anonymous pages.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch

from benchmarks.output import publish
from piu_lora.config import ForgetConfig
from piu_lora.identity import IdentityBank, RecognizerId, choose_anchor

__all__ = ["main", "measure", "measure_here", "table", "write_bank"]

WAYS = ("choose_anchor", "float32 copy")
_WIDTH, _FALL, _SHARED = 512, 190, 0.15
_BLOCK = 20_000
_ROW = 12_345  # who is forgotten


def write_bank(path: Path, identities: int, width: int = _WIDTH) -> None:
    """A bank of one embedding each, in half precision."""
    generator = torch.Generator().manual_seed(0)
    spread = torch.exp(-torch.arange(width) / _FALL)
    shared = torch.nn.functional.normalize(torch.randn(width, generator=generator), dim=0)
    rows = torch.empty(identities, width, dtype=torch.float16)
    for block in rows.split(_BLOCK):
        drawn = torch.nn.functional.normalize(torch.randn(block.shape, generator=generator) * spread, dim=1)
        block.copy_(torch.nn.functional.normalize(drawn + _SHARED * shared, dim=1))
    labels = torch.arange(identities, dtype=torch.int32)
    IdentityBank(
        rows, labels, [f"p{number}" for number in range(identities)], RecognizerId("synthetic", "00" * 32)
    ).save(path)


def measure(bank: Path, threads: int, rounds: int) -> dict[str, dict[str, Any]]:
    """Seconds and memory by way; each in a process of its own."""
    root = Path(__file__).resolve().parents[1]
    options = ["--bank", str(bank), "--threads", str(threads), "--rounds", str(rounds)]
    command = [sys.executable, "-m", "benchmarks.anchor_search", *options, "--way"]
    return {
        way: json.loads(
            subprocess.run([*command, way], cwd=root, check=True, stdout=subprocess.PIPE, text=True).stdout
        )
        for way in WAYS
    }


def measure_here(bank_path: Path, way: str, threads: int, rounds: int) -> dict[str, Any]:
    """Seconds of each call, the first one apart, and anonymous bytes above those of the loaded bank."""
    torch.set_num_threads(threads)
    begun = time.perf_counter()
    bank = IdentityBank.load(bank_path)
    loaded = time.perf_counter() - begun
    with _Peak() as peak:
        call = _way(bank, way)
        seconds = []
        for _ in range(rounds + 1):
            begun = time.perf_counter()
            found = call()
            seconds.append(time.perf_counter() - begun)
    return {"load": loaded, "first": seconds[0], "seconds": seconds[1:], "peak": peak.bytes, "cosine": found}


def _way(bank: IdentityBank, way: str) -> Callable[[], float]:
    """What is timed; gives the anchor's cosine, or the best one of the product."""
    row = min(_ROW, len(bank) - 1)
    forgotten = bank.centroid(row)
    if way == "float32 copy":
        centroids: torch.Tensor | None = None

        def product() -> float:
            nonlocal centroids
            if (
                centroids is None
            ):  # the first call makes it; with one embedding each, the embeddings are the centroids
                centroids = bank.embeddings.float()
            return float((centroids @ forgotten)[:row].max())

        return product
    # As forget calls it: everybody else on the training side, in a list.
    candidates = [each for each in range(len(bank)) if each != row and each % 10]
    config = ForgetConfig().updated({"anchor": {"on_empty": "widen"}}).anchor
    return lambda: choose_anchor(bank, forgotten, candidates, config, torch.Generator().manual_seed(0)).cosine


class _Peak:
    """The most anonymous memory above that at the start, looked at a thousand times a second."""

    bytes = 0

    def __enter__(self) -> Self:
        self._start, self._stop = _anonymous(), threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.001):
            self.bytes = max(self.bytes, _anonymous() - self._start)


def _anonymous() -> int:
    """Resident bytes of this process that no file backs; Linux only."""
    with Path("/proc/self/status").open() as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("RssAnon"))


def table(result: dict[str, Any]) -> str:
    """The result as a markdown table."""
    people, threads = result["settings"]["identities"], result["settings"]["threads"]
    lines = [
        f"| {people:,} people, {threads} threads | first call, s | further calls, s (median) "
        "| memory above the bank, MB |",
        "|---|--:|--:|--:|",
    ]
    for way, label in zip(WAYS, ("`choose_anchor`", "product with a float32 copy"), strict=True):
        found = result["ways"][way]
        later = statistics.median(found["seconds"])
        lines.append(f"| {label} | {found['first']:.2f} | {later:.2f} | {found['peak'] / 1e6:,.0f} |")
    return "\n".join([*lines, "", f"The bank itself: {result['bank_bytes'] / 1e6:,.0f} MB, memory-mapped."])


@dataclass(frozen=True)
class _Arguments:
    identities: int
    threads: int
    rounds: int
    out: Path | None
    markdown: Path | None
    bank: Path | None
    way: str | None


def main() -> None:
    """Make the bank, measure, print the table."""
    arguments = _arguments()
    if arguments.way and arguments.bank:
        print(json.dumps(measure_here(arguments.bank, arguments.way, arguments.threads, arguments.rounds)))
        return
    with tempfile.TemporaryDirectory() as folder:
        bank = Path(folder) / "bank.safetensors"
        write_bank(bank, arguments.identities)
        ways, size = measure(bank, arguments.threads, arguments.rounds), bank.stat().st_size
    settings = {
        "identities": arguments.identities,
        "width": _WIDTH,
        "threads": arguments.threads,
        "torch": torch.__version__,
        "load": [round(load, 1) for load in os.getloadavg()],
    }
    result = {"ways": ways, "bank_bytes": size, "settings": settings}
    publish(table(result), result, arguments.out, arguments.markdown)


def _arguments() -> _Arguments:
    parser = argparse.ArgumentParser(description="Seconds and memory of choosing the anchor in a large bank.")
    parser.add_argument("--identities", type=int, default=1_000_000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, help="JSON file for the raw figures")
    parser.add_argument("--markdown", type=Path, help="file for the table")
    parser.add_argument("--bank", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    return _Arguments(**vars(parser.parse_args()))


if __name__ == "__main__":
    main()
