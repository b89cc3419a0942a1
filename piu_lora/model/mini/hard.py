"""Photographs that are hard on purpose: strong pose and light, blur, other hair, glasses on or off, a face
that is partly covered.

The embedded base's people are cones of 20 degrees, real ones of 50. Between the photographs of this module
people are about as wide as real ones, so that what happens to photographs which nobody gave can be seen
without any data.
"""

from pathlib import Path

import torch

from piu_lora.identity import IdentityBank, Recognizer, normalize
from piu_lora.identity.profiles import bank_geometry
from piu_lora.model.mini import TUNED_ON
from piu_lora.model.mini.dataset import BANK_SEED, people
from piu_lora.model.mini.render import IDENTITY, NUISANCE, render, sample_nuisance

__all__ = ["HARD_ROWS", "HARD_SHOTS", "hard_portraits", "save_hard_banks"]

HARD_SHOTS = 8
_BANK_PEOPLE = 1024
# Rows of the embedded bank whom no default was chosen on, evenly spread; enough for a geometry of their own.
HARD_ROWS = tuple(row for row in range(21, 1024, 16) if row not in TUNED_ON)[:56]
_SEED = 5
# Unit numbers may leave [0, 1]: a head turned farther than any photograph of the bank shows it.
_FARTHER = {"yaw": 0.2, "pitch": 0.15, "roll": 0.5, "light_x": 0.2, "light_strength": 0.5, "exposure": 0.5}
_HAIR = ("hair_colour", "hair_length", "hair_volume", "hair_curl", "hair_part", "fringe")
_BLUR = 3.0  # in units of the usual range
_CHANCE = {"hair": 0.3, "glasses": 0.2, "beard": 0.15, "blur": 0.2, "cover": 0.15}


def hard_portraits(row: int, count: int = HARD_SHOTS, seed: int = _SEED) -> torch.Tensor:
    """Hard photographs of a person of the embedded bank, (count, 3, 96, 96) uint8 RGB."""
    generator = torch.Generator().manual_seed(seed * 10_000_019 + row)
    person = people(_BANK_PEOPLE, BANK_SEED)[row].expand(count, -1).clone()
    nuisance = sample_nuisance(count, generator)
    for name, farther in _FARTHER.items():
        column = _column(NUISANCE, name)
        spread = torch.rand(count, generator=generator) * (1 + 2 * farther) - farther
        nuisance[:, column] = spread
    _where(nuisance, "blur", _CHANCE["blur"], generator, 1.0, _BLUR)
    _change(person, _HAIR, _CHANCE["hair"], generator)
    _change(person, ("glasses", "glasses_shape", "glasses_tone"), _CHANCE["glasses"], generator)
    _change(person, ("beard", "moustache"), _CHANCE["beard"], generator)
    pictures = render(person, nuisance, generator)
    return _covered(pictures, generator)


def save_hard_banks(weights: Path) -> None:
    """Write ``bank_hard.safetensors`` and ``bank_hard_evaluating.safetensors``: ``HARD_SHOTS`` hard
    photographs of every person of ``HARD_ROWS``, by both recognizers, with their geometry.
    """
    faces = torch.cat([hard_portraits(row) for row in HARD_ROWS]).float() / 255
    labels = torch.arange(len(HARD_ROWS), dtype=torch.int32).repeat_interleave(HARD_SHOTS)
    settings = {"renderer_seed": BANK_SEED, "shots": HARD_SHOTS, "size": faces.shape[-1], "hard": _SEED}
    ids = [f"mini-{row:04d}" for row in HARD_ROWS]
    for name, ending in (("conditioning", ""), ("evaluating", "_evaluating")):
        recognizer = Recognizer(weights / f"{name}.onnx", f"mini-{name}")
        embeddings = normalize(recognizer.embed(faces)).half()
        bank = IdentityBank(embeddings, labels, ids, recognizer.id, settings)
        bank.geometry = bank_geometry(bank)
        bank.save(weights / f"bank_hard{ending}.safetensors")


def _column(table: tuple[object, ...], name: str) -> int:
    return [getattr(parameter, "name", "") for parameter in table].index(name)


def _chosen(count: int, chance: float, generator: torch.Generator) -> torch.Tensor:
    return torch.rand(count, generator=generator) < chance


def _where(
    units: torch.Tensor, name: str, chance: float, generator: torch.Generator, low: float, high: float
) -> None:
    """A nuisance parameter between ``low`` and ``high`` in some of the photographs."""
    values = low + (high - low) * torch.rand(len(units), generator=generator)
    chosen = _chosen(len(units), chance, generator)
    column = _column(NUISANCE, name)
    units[chosen, column] = values[chosen]


def _change(person: torch.Tensor, names: tuple[str, ...], chance: float, generator: torch.Generator) -> None:
    """Parameters of the looks drawn anew in some of the photographs."""
    columns = [_column(IDENTITY, name) for name in names]
    fresh = torch.rand(len(person), len(columns), generator=generator)
    chosen = _chosen(len(person), chance, generator)
    for position, column in enumerate(columns):
        person[chosen, column] = fresh[chosen, position]


def _covered(pictures: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """A mask over mouth and chin, a brim over the forehead, or something before one side, in some."""
    count, size = len(pictures), pictures.shape[-1]
    chosen = _chosen(count, _CHANCE["cover"], generator)
    kinds = torch.randint(3, (count,), generator=generator)
    colours = torch.randint(20, 236, (count, 3), generator=generator, dtype=torch.uint8)
    for position in chosen.nonzero()[:, 0].tolist():
        kind, colour = int(kinds[position]), colours[position][:, None, None]
        if kind == 0:
            pictures[position, :, round(0.62 * size) : round(0.92 * size), size // 4 : -size // 4] = colour
        elif kind == 1:
            pictures[position, :, : round(0.36 * size)] = colour
        else:
            pictures[position, :, size // 3 :, : round(0.42 * size)] = colour
    return pictures
