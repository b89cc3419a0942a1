"""Photographs a second: `piu-lora bank build` beside a plain insightface loop, on the same cores.

Run from the repository's root:

    python -m benchmarks.bank_build --photos DIR --pack DIR [--rounds N] [--out FILE.json] [--markdown
    FILE.md]

All start from nothing: loading the models is part of the time. The plain loop is what insightface's examples
show, and leaves the number of threads to onnxruntime, which counts the machine's cores and not those it may
use; the tuned one is told. They take turns; the figures name no photograph and no person.
"""

import argparse
import contextlib
import importlib
import importlib.metadata
import io
import logging
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.output import publish

__all__ = ["build_seconds", "main", "measure", "plain_seconds", "table"]

_DET_SIZE = (640, 640)


def plain_seconds(photos: Sequence[Path], pack: Path, threads: int = 0) -> tuple[float, int]:
    """Seconds of the plain loop, and in how many photographs it found a face; 0 threads leaves them to
    onnxruntime.
    """
    begun, found = time.perf_counter(), 0
    import cv2
    import onnxruntime
    from insightface.app import FaceAnalysis

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    with contextlib.redirect_stdout(io.StringIO()):  # insightface prints while it loads
        app = FaceAnalysis(
            name=str(pack),
            providers=["CPUExecutionProvider"],
            **({"sess_options": options} if threads else {}),
        )
        app.prepare(ctx_id=0, det_size=_DET_SIZE)
    for photo in photos:
        faces = app.get(cv2.imread(str(photo)))
        if faces:
            largest = max(
                faces, key=lambda face: (face.bbox[2] - face.bbox[0]) * (face.bbox[3] - face.bbox[1])
            )
            found += int(largest.normed_embedding is not None)
    return time.perf_counter() - begun, found


def build_seconds(photos: Path, pack: Path, workers: int) -> tuple[float, int]:
    """Seconds of ``build_bank``, and in how many photographs it found a face."""
    begun = time.perf_counter()
    from piu_lora.identity import FaceReader
    from piu_lora.jobs.banks.build import build_bank

    reader = FaceReader(pack, threads=1)
    with tempfile.TemporaryDirectory() as folder:
        made = build_bank(photos, Path(folder) / "bank.safetensors", reader, reader.settings, workers=workers)
    return time.perf_counter() - begun, made.faces


def measure(photos: Path, pack: Path, rounds: int, workers: int) -> dict[str, Any]:
    """All three, in turn."""
    files = sorted(photos.glob("*/*.jpg")) or sorted(photos.glob("*.jpg"))
    cores = len(os.sched_getaffinity(0))
    loops: dict[str, Callable[[], tuple[float, int]]] = {
        "plain": lambda: plain_seconds(files, pack),
        "tuned": lambda: plain_seconds(files, pack, cores),
        "build": lambda: build_seconds(photos, pack, workers),
    }
    plain_seconds(files[:2], pack)  # imports what all of them need
    importlib.import_module("piu_lora.jobs.banks.build")
    runs: dict[str, list[float]] = {name: [] for name in loops}
    faces = {}
    for _ in range(rounds):
        for name, loop in loops.items():
            seconds, faces[name] = loop()
            runs[name].append(seconds)
    settings = {
        "rounds": rounds,
        "workers": workers,
        "cores": cores,
        "det_size": _DET_SIZE[0],
        "load": [round(load, 1) for load in os.getloadavg()],
        "models": sorted(file.name for file in pack.glob("*.onnx")),
        **{name: importlib.metadata.version(name) for name in ("insightface", "onnxruntime")},
    }
    return {"photos": len(files), "faces": faces, "seconds": runs, "settings": settings}


def table(result: dict[str, Any]) -> str:
    """The result as a markdown table."""
    labels = {
        "plain": "plain insightface loop",
        "tuned": "the same, a thread for each core",
        "build": "piu-lora bank build",
    }
    head = f"{result['photos']} photographs, {result['settings']['cores']} cores"
    lines = [f"| {head} | faces found | photographs a second | build : this |", "|---|--:|--:|--:|"]
    build = result["seconds"]["build"]
    for name, label in labels.items():
        seconds = result["seconds"][name]
        ratios = sorted(slow / fast for slow, fast in zip(seconds, build, strict=True))
        span = (
            "1"
            if name == "build"
            else f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
        )
        pace = result["photos"] / statistics.median(seconds)
        lines.append(f"| {label} | {result['faces'][name]} | {pace:.1f} | {span} |")
    return "\n".join(lines)


@dataclass(frozen=True)
class _Arguments:
    photos: Path
    pack: Path
    rounds: int
    workers: int
    cores: int
    out: Path | None
    markdown: Path | None


def main() -> None:
    """Measure, print the table."""
    arguments = _arguments()
    logging.getLogger("piu_lora").setLevel(logging.ERROR)
    # Before onnxruntime is imported.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: arguments.cores])
    result = measure(arguments.photos, arguments.pack, arguments.rounds, arguments.workers)
    publish(table(result), result, arguments.out, arguments.markdown)


def _arguments() -> _Arguments:
    parser = argparse.ArgumentParser(
        description="Photographs a second of `piu-lora bank build` beside a plain insightface loop."
    )
    parser.add_argument(
        "--photos",
        type=Path,
        required=True,
        help="a folder with a folder of JPEGs for each person, or of JPEGs only",
    )
    parser.add_argument(
        "--pack", type=Path, required=True, help="face pack with one detector and one recognizer"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--cores", type=int, default=2, help="both run on the first so many cores")
    parser.add_argument("--out", type=Path, help="JSON file for the raw figures")
    parser.add_argument("--markdown", type=Path, help="file for the table")
    return _Arguments(**vars(parser.parse_args()))


if __name__ == "__main__":
    main()
