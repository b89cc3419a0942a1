"""One to four ``generate`` of eight images side by side: by default, and with one thread each.

    python -m benchmarks.side_by_side --out benchmarks/results/side_by_side.json

Prints a table of seconds until the last of them is done. On a machine that does nothing else, four by default
should take at most 1.15 times what they take on one thread each.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

_COMMAND = ("-m", "piu_lora", "generate", "--identity", "mini-0007", "--images", "8", "--force", "--out")
_WAYS = {"by default": {}, "one thread each": {"OMP_NUM_THREADS": "1"}}
_UNSET = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT")


def seconds(count: int, settings: dict[str, str], folder: Path) -> float:
    """Until the last of ``count`` processes is done."""
    plain = {name: value for name, value in os.environ.items() if name not in _UNSET}
    begun = time.perf_counter()
    processes = [
        subprocess.Popen(
            [sys.executable, *_COMMAND, str(folder / f"{number}.png")],
            env={**plain, **settings}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        for number in range(count)
    ]  # fmt: skip
    codes = [process.wait() for process in processes]
    if any(codes):
        raise SystemExit("a run failed")
    return round(time.perf_counter() - begun, 1)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--most", type=int, default=4, help="processes at once, at most")
    parser.add_argument("--rounds", type=int, default=3, help="of which the fastest counts")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    arguments = parser.parse_args()
    load = round(psutil.getloadavg()[0], 1)
    table: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for way, settings in _WAYS.items():
            table[way] = [
                min(seconds(count, settings, Path(folder)) for _ in range(arguments.rounds))
                for count in range(1, arguments.most + 1)
            ]
    counts = range(1, arguments.most + 1)
    print(f"{os.cpu_count()} cores, load {load} before")
    print("| side by side |", " | ".join(map(str, counts)), "|")
    print("|---|" + "--:|" * len(counts))
    for way, row in table.items():
        print(f"| {way} |", " | ".join(f"{value:g} s" for value in row), "|")
    if arguments.out is not None:
        facts = {"cores": os.cpu_count(), "load_before": load, "seconds": table}
        arguments.out.write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
