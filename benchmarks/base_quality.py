"""How good the embedded base is, on people unseen in training.

    python -m benchmarks.base_quality --out benchmarks/results/base_quality.json

Recognizers: rank-1 among the bank's people, cosine within and between people, anchors in the band.
Generator: ISM and rank-1 of generated faces among the whole bank, seconds an image, and a sheet to look at.
Every figure by the recognizer that conditions the base and by the one that only evaluates.
"""

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.output import parser as new_parser
from piu_lora.evidence.metrics import accuracy, cosine_to, interval
from piu_lora.evidence.picture import face_grid
from piu_lora.identity import IdentityBank
from piu_lora.model import generate, load_base, mini
from piu_lora.model.mini.export import bank_portraits


def recognizer_figures(bank: IdentityBank, recognizer: Any, probes: torch.Tensor) -> dict[str, Any]:
    """Fresh photographs (people, shots, 3, h, w) against the bank's centroids."""
    people, shots = probes.shape[:2]
    embedded = recognizer.embed(probes.flatten(0, 1))
    labels = np.repeat(np.arange(people), shots)
    centroids = bank.centroids
    between = (centroids @ centroids.T)[~torch.eye(len(bank), dtype=torch.bool)].reshape(len(bank), -1)
    same = embedded.unflatten(0, (people, shots))
    pairs = torch.einsum("psd,ptd->pst", same, same)[:, ~torch.eye(shots, dtype=torch.bool)]
    return {
        "rank_1": float(accuracy(embedded, centroids, labels).mean()),
        "cosine_to_own_centroid": float(cosine_to(embedded, centroids[labels]).mean()),
        "cosine_same_person": float(pairs.mean()),
        "cosine_between_centroids": {
            "mean": float(between.mean()),
            "sd": float(between.std()),
            "max": float(between.max()),
        },
        "people_with_an_anchor_within_0.01_of_0.2": float(
            ((between - 0.2).abs() < 0.01).any(dim=1).float().mean()
        ),
    }


def generator_figures(people: int, steps: int, guidance: float) -> tuple[dict[str, Any], torch.Tensor]:
    """One generated face for each of ``people`` identities, scored against the whole bank; the faces too."""
    pipe, bank = load_base("mini"), mini.conditioning_bank()
    rows = np.linspace(0, len(bank) - 1, people).astype(int)
    conditions = torch.stack([bank.of(bank.ids[row])[0] for row in rows])
    generate(pipe, conditions[:2], [0, 1], steps=2)
    begun = time.perf_counter()
    faces = generate(pipe, conditions, list(range(people)), steps=steps, guidance=guidance, batch=32)
    seconds = time.perf_counter() - begun
    figures: dict[str, Any] = {
        "images": people,
        "steps": steps,
        "guidance": guidance,
        "seconds_per_image": seconds / people,
    }
    judges = (
        ("conditioning", mini.conditioning_recognizer(), bank),
        ("evaluating", mini.evaluating_recognizer(), mini.evaluating_bank()),
    )
    for name, recognizer, judging in judges:
        embedded = recognizer.embed(faces)
        cosine = cosine_to(embedded, judging.centroids[rows])
        hit = accuracy(embedded, judging.centroids, rows)
        figures[name] = {
            "ism": float(cosine.mean()),
            "ism_interval": interval(cosine),
            "rank_1": float(hit.mean()),
            "rank_1_interval": interval(hit),
        }
    return figures, faces


def sheet(faces: torch.Tensor, count: int = 10) -> Any:
    """Photographs of the first people (top) over the faces generated from another photograph of theirs
    (bottom).
    """
    rows = np.linspace(0, len(mini.conditioning_bank()) - 1, len(faces)).astype(int)[:count]
    real = [bank_portraits(int(row), 2)[1].float() / 255 for row in rows]
    return face_grid([("rendered", real), ("generated", list(faces[:count]))])


def table(result: dict[str, Any]) -> str:
    """Markdown: every figure by both recognizers."""
    made = result["generator"]
    settings = f"{made['steps']} steps, guidance {made['guidance']:g}, {made['images']} people"
    judges = ("conditioning", "evaluating")
    rows = {
        "rank-1 of fresh photographs among 1,024": [f"{result[name]['rank_1']:.4f}" for name in judges],
        "cosine of two photographs of one person": [
            f"{result[name]['cosine_same_person']:.3f}" for name in judges
        ],
        "cosine between people: SD": [
            f"{result[name]['cosine_between_centroids']['sd']:.3f}" for name in judges
        ],
        "people with somebody within 0.01 of cosine 0.2": [
            f"{result[name]['people_with_an_anchor_within_0.01_of_0.2']:.3f}" for name in judges
        ],
        f"ISM of generated faces ({settings})": [f"{made[name]['ism']:.3f}" for name in judges],
        "rank-1 of generated faces among 1,024": [f"{made[name]['rank_1']:.3f}" for name in judges],
    }
    lines = [
        "| people unseen in training | conditioning recognizer | evaluating recognizer |",
        "|---|--:|--:|",
        *(f"| {name} | {' | '.join(cells)} |" for name, cells in rows.items()),
    ]
    seconds = f"{made['seconds_per_image']:.2f} s an image on {result['threads']} thread."
    return "\n".join([*lines, "", seconds])


def main() -> None:
    """Measure, print, write."""
    parser = new_parser(__doc__)
    parser.add_argument("--people", type=int, default=256)
    parser.add_argument("--steps", type=int, default=15)
    parser.add_argument("--guidance", type=float, default=3.0)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    probes = torch.stack([bank_portraits(row, 13)[9:] for row in range(1000)]).float() / 255
    generator, faces = generator_figures(options.people, options.steps, options.guidance)
    result = {
        "threads": torch.get_num_threads(),
        "conditioning": recognizer_figures(mini.conditioning_bank(), mini.conditioning_recognizer(), probes),
        "evaluating": recognizer_figures(mini.evaluating_bank(), mini.evaluating_recognizer(), probes),
        "generator": generator,
    }
    options.out.write_text(json.dumps(result, indent=2) + "\n")
    sheet(faces).save(options.out.with_suffix(".png"))
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
