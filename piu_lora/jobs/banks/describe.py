"""What a bank holds, and what is wrong with it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from piu_lora.config import AnchorConfig
from piu_lora.errors import BadInput, Incompatible
from piu_lora.identity import IdentityBank, normalize
from piu_lora.identity.cluster import doubles, similarities
from piu_lora.identity.geometry import Geometry
from piu_lora.identity.profiles import bank_geometry
from piu_lora.jobs.request.constants import double_of, in_force, preset_of, typical_photographs

__all__ = ["BankFacts", "check_banks", "constants_of", "describe_bank"]

_PAIRS = 40_000_000  # comparisons for the count of anchors; more would take minutes and say the same


@dataclass(frozen=True)
class BankFacts:
    """Figures of a bank, and the cosines behind them for a picture."""

    facts: dict[str, Any]
    geometry: Geometry
    same: torch.Tensor
    different: torch.Tensor


def describe_bank(bank: IdentityBank, anchor: AnchorConfig = AnchorConfig()) -> BankFacts:  # noqa: B008
    """Sizes, norms, the cosines within and between identities, and how many anchors each identity has in the
    band.
    """
    counts = bank.labels.bincount().float()
    norms = torch.linalg.vector_norm(bank.embeddings[: 1_000_000 // max(1, bank.width // 512)].float(), dim=1)
    same, different = similarities(*_sample(bank))
    geometry = bank_geometry(bank)
    near = _anchors(bank, anchor.tau, anchor.tolerance)
    facts = {
        "identities": len(bank),
        "embeddings": len(bank.embeddings),
        "width": bank.width,
        "digest": bank.digest,
        "per_identity": _spread(counts),
        "norms": _spread(norms),
        "recognizer": bank.recognizer.name,
        "recognizer_sha256": bank.recognizer.sha256,
        "settings": bank.settings,
        "same_person": _spread(same),
        "different_people": _spread(different),
        "anchors": {
            "band": f"{anchor.tau} +- {anchor.tolerance}",
            "per_identity": _spread(near),
            "share_without": float((near == 0).float().mean()),
        },
        "geometry": geometry.to_dict(),
        "first_ids": bank.ids[:5],
    }
    return BankFacts(facts, geometry, same, different)


def _sample(bank: IdentityBank) -> tuple[torch.Tensor, torch.Tensor]:
    """Embeddings and labels of whole identities, evenly spread, some 50,000 rows of a large bank."""
    chosen = bank.labels % max(1, len(bank.embeddings) // 50_000) == 0
    return normalize(bank.embeddings[chosen]), bank.labels[chosen]


def _spread(values: torch.Tensor) -> dict[str, float] | None:
    if len(values) == 0:
        return None
    low, middle, high = values.min(), values.median(), values.max()
    return {"min": round(float(low), 4), "median": round(float(middle), 4), "max": round(float(high), 4)}


def _anchors(bank: IdentityBank, tau: float, tolerance: float) -> torch.Tensor:
    people = min(len(bank), 2000, max(20, _PAIRS // len(bank)))
    rows = range(0, len(bank), len(bank) // people)
    counts = [((bank.cosines(bank.centroid(row)) - tau).abs() < tolerance).sum() for row in rows]
    return torch.stack(counts).float()


def check_banks(paths: Sequence[str | Path], double: float | None = None) -> list[str]:
    """Everything that makes banks unfit, one line each; none when they are sound.

    NaN, zero rows and damaged files; several recognizers among the banks; identities that are likely one
    person.

    Args:
        double: centroids of two identities at this cosine or more are likely one person; by default by each
            bank's geometry.
    """
    problems, sound = [], []
    for path in paths:
        try:
            sound.append((path, IdentityBank.load(path)))
        except BadInput as error:
            problems.append(str(error) if str(path) in str(error) else f"{str(path)!r}: {error}")
    for path, bank in sound:
        for pair in doubles(bank, double_of(bank).value if double is None else double):
            problems.append(
                f"{str(path)!r}: identities {pair.first!r} and {pair.second!r} "
                f"lie at cosine {pair.cosine:.3f}, likely one person"
            )
        if not bank.recognizer.sha256:
            problems.append(
                f"{str(path)!r}: the digest of its recognizer {bank.recognizer.name!r} is unknown; "
                "import it again with pack=DIR"
            )
    for path, bank in sound[1:]:
        try:
            sound[0][1].recognizer.require(
                bank.recognizer, f"bank {str(sound[0][0])!r}", f"bank {str(path)!r}"
            )
        except Incompatible as error:
            problems.append(str(error))
    return problems


def constants_of(
    paths: Sequence[str | Path], settings: Sequence[str] = ()
) -> dict[str, list[dict[str, Any]]]:
    """By readable bank, the settings that follow from its geometry, as ``InForce`` has them.

    Args:
        settings: ``section.key=value`` pairs, set by hand.
    """
    rows = {}
    for path in paths:
        try:
            bank = IdentityBank.load(path)
        except BadInput:
            continue
        config = preset_of(bank).updated_from_pairs(settings)
        rows[str(path)] = [vars(constant) for constant in in_force(bank, config, typical_photographs(bank))]
    return rows
