"""One to four ``generate`` of eight images side by side: by default, and with one thread each.

    python -m benchmarks.side_by_side --out benchmarks/results/side_by_side.json

Seconds until the last of them is done, the median of several rounds, in which the two ways take turns. On
a machine that does nothing else, four by default should take at most 1.15 times what they take on one thread
each.
A calibrating run - one picture of the embedded base, in a process that has loaded it - says how fast the
machine is. What was measured before threads were chosen (``EARLIER``) is from another day.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

from benchmarks.output import parser as new_parser
from benchmarks.output import publish
from piu_lora.jobs.doctor.models import seconds_an_image

__all__ = ["main", "seconds", "table"]

_COMMAND = ("-m", "piu_lora", "generate", "--identity", "mini-0007", "--images", "8", "--force", "--out")
_WAYS = {"by default": {}, "one thread each": {"OMP_NUM_THREADS": "1"}}
EARLIER = {"earlier, by default": (11, 30, 34, 86), "earlier, one thread each": (11, 9, 15, 21)}
_UNSET = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT")


def seconds(count: int, settings: dict[str, str], folder: Path) -> float:
    """Until the last of ``count`` processes is done."""
    plain = {name: value for name, value in os.environ.items() if name not in _UNSET}
    begun = time.perf_counter()
    processes = [
        subprocess.Popen(
            [sys.executable, *_COMMAND, str(folder / f"{number}.png")],
            env={**plain, **settings},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for number in range(count)
    ]
    codes = [process.wait() for process in processes]
    if any(codes):
        raise SystemExit("a run failed")
    return round(time.perf_counter() - begun, 2)


def table(result: dict[str, Any]) -> str:
    """Markdown: seconds by the number of processes, and what the default takes of one thread each."""
    ways: dict[str, list[float]] = result["seconds"]
    counts = range(1, len(next(iter(ways.values()))) + 1)
    lines = [
        "| processes at once |" + "".join(f" {count} |" for count in counts),
        "|---|" + "--:|" * len(counts),
    ]
    for way, row in (EARLIER | ways).items():
        lines.append(f"| {way}, s |" + "".join(f" {value:.3g} |" for value in row))
    default, single = (ways[way] for way in _WAYS)
    ratios = (f" {one / other:.2f} |" for one, other in zip(default, single, strict=True))
    return "\n".join([*lines, "| by default / one thread each |" + "".join(ratios)])


def main() -> None:
    """Measure and print."""
    parser = new_parser(__doc__)
    parser.add_argument("--most", type=int, default=4, help="processes at once, at most")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, help="JSON file to write")
    arguments = parser.parse_args()
    facts = {
        "cores": os.cpu_count(),
        "load_before": round(psutil.getloadavg()[0], 1),
        "seconds_an_image": round(seconds_an_image(), 2),
    }
    rounds: dict[str, list[list[float]]] = {way: [] for way in _WAYS}
    with tempfile.TemporaryDirectory() as folder:
        for count in range(1, arguments.most + 1):
            for way in _WAYS:
                rounds[way].append([])
            for _ in range(arguments.rounds):
                for way, settings in _WAYS.items():
                    rounds[way][-1].append(seconds(count, settings, Path(folder)))
                    print(f"{count}, {way}: {rounds[way][-1][-1]} s", file=sys.stderr, flush=True)
    medians = {way: [statistics.median(times) for times in row] for way, row in rounds.items()}
    result = {**facts, "rounds": rounds, "seconds": medians}
    publish(table(result), result, arguments.out, None)


if __name__ == "__main__":
    main()
