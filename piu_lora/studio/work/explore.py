"""Exploring adapters: faces under other settings, a walk to a neighbour, a map of the bank."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from piu_lora.errors import BadInput
from piu_lora.studio.bench import Bench
from piu_lora.studio.queue import Job
from piu_lora.studio.visitors import Visitor
from piu_lora.studio.work.pictures import Draw, Pair, draw_pairs, nearest_rows

if TYPE_CHECKING:
    import torch
    from diffusers import StableDiffusionPipeline

__all__ = ["BankMap", "Drawn", "Look", "MapPoint", "Walk", "draw_work", "map_work", "walk_work"]

_FACES, _STEPS = 4, 7


@dataclass(frozen=True)
class Look:
    """What is asked for.

    Attributes:
        adapters: ids of adapters at hand, all active together.
        person: an id of the bank, or what somebody is called whose embeddings are in ``file``.
        strength: what every adapter's change is multiplied by.
        negative: allow a strength below 0.
        prompt: text that carries the identity; empty for that of the base.
    """

    adapters: tuple[str, ...]
    person: str
    strength: float = 1.0
    negative: bool = False
    steps: int = 0
    guidance: float = 0.0
    prompt: str = ""
    seed: int = 0
    file: Path | None = None


@dataclass(frozen=True)
class Drawn:
    """A person, several seeds."""

    person: str
    strength: float
    pairs: tuple[Pair, ...]


@dataclass(frozen=True)
class Walk:
    """From a person to a neighbour, step by step."""

    person: str
    neighbour: str
    pairs: tuple[Pair, ...]
    kind: Literal["walk"] = "walk"


@dataclass(frozen=True)
class MapPoint:
    """Somebody on the map, (x, y) from 0 to 1; ``share`` of the largest change."""

    row: int
    person: str
    x: float
    y: float
    change: float
    share: float


@dataclass(frozen=True)
class BankMap:
    """Everybody of the bank, and how much the adapters change each; the most changed last."""

    points: tuple[MapPoint, ...]
    strength: float


def draw_work(bench: Bench, visitor: Visitor, look: Look) -> Callable[[Job], None]:
    """The person before and after, from several seeds."""

    def work(job: Job) -> None:
        with _worn(bench, visitor, look, job) as pipe:
            embeddings = _embeddings(bench, look)
            faces = [
                (f"seed {look.seed + place}", embeddings[place % len(embeddings)], look.seed + place)
                for place in range(_FACES)
            ]
            pairs = draw_pairs(pipe, faces, _draw(bench, look), job.progress, reader=bench.open().reader)
            job.show(Drawn(look.person, look.strength, tuple(pairs)))

    return work


def walk_work(bench: Bench, visitor: Visitor, look: Look, neighbour: str = "") -> Callable[[Job], None]:
    """Faces on the way from the person to a neighbour, by default the nearest one."""

    def work(job: Job) -> None:
        from piu_lora.identity import centroid

        with _worn(bench, visitor, look, job) as pipe:
            bank, start = bench.bank, centroid(_embeddings(bench, look))
            itself = {bank.index(look.person)} if look.file is None else set()
            other = bank.index(neighbour) if neighbour else nearest_rows(bank, start, itself, 1)[0]
            points = _between(start, bank.centroid(other))
            faces = [
                (f"{100 * place / (_STEPS - 1):.0f} %", point, look.seed)
                for place, point in enumerate(points)
            ]
            pairs = draw_pairs(pipe, faces, _draw(bench, look), job.progress, reader=bench.open().reader)
            job.show(Walk(look.person, bank.ids[other], tuple(pairs)))

    return work


def map_work(bench: Bench, visitor: Visitor, look: Look) -> Callable[[Job], None]:
    """The bank in two dimensions, and how much each person is changed."""

    def work(job: Job) -> None:
        from piu_lora.jobs.stacks.check import bank_changes
        from piu_lora.jobs.stacks.members import open_members

        with job.progress("measure the bank", 0):
            session = bench.session(job.progress)
            paths = [visitor.adapter(key).path for key in look.adapters]
            members = open_members(paths, [look.strength] * len(paths), allow_negative=look.negative)
            changes = bank_changes(members, session.pipe, session.bank)
        with job.progress("lay out the map", 0):
            places = bench.map_places()
        top = float(changes.max()) or 1.0
        points = [
            MapPoint(row, person, x, y, float(change), float(change) / top)
            for row, (person, (x, y), change) in enumerate(
                zip(session.bank.ids, places, changes, strict=True)
            )
        ]
        job.show(BankMap(tuple(sorted(points, key=lambda point: point.change)), look.strength))

    return work


@contextmanager
def _worn(bench: Bench, visitor: Visitor, look: Look, job: Job) -> "Iterator[StableDiffusionPipeline]":
    """The pipeline with the adapters active, given back bare."""
    from piu_lora.adapter import load_adapters, unload

    with job.progress("load the adapters", 0):
        pipe = bench.session(job.progress).pipe
        paths = [visitor.adapter(key).path for key in look.adapters]
        names = load_adapters(pipe, paths, [look.strength] * len(paths), allow_negative=look.negative)
    try:
        yield pipe
    finally:
        unload(pipe, names)


def _embeddings(bench: Bench, look: Look) -> "torch.Tensor":
    """Of the person, (n, d)."""
    from piu_lora.identity import resolve_identity

    return resolve_identity(look.file or look.person, bench.bank, None).embeddings


def _draw(bench: Bench, look: Look) -> Draw:
    from dataclasses import replace

    from piu_lora.config import ForgetConfig
    from piu_lora.model import identity_position, prompt_of

    session = bench.open()
    preset = ForgetConfig.preset(session.family).evaluation
    prompt = None
    if look.prompt:
        usual = prompt_of(session.pipe.text_encoder)
        if look.prompt.split().count(usual.token) != 1:
            raise BadInput(
                f"prompt = {look.prompt!r} holds no place for the face; "
                f"write the word {usual.token!r} once, as in {usual.text!r}"
            )
        prompt = replace(usual, text=look.prompt)
        identity_position(session.pipe.tokenizer, prompt)
    return Draw(look.steps or preset.steps, look.guidance or preset.guidance, prompt)


def _between(start: "torch.Tensor", end: "torch.Tensor") -> "list[torch.Tensor]":
    """Unit vectors on the shorter arc from one to the other, both included."""
    import torch

    angle = torch.arccos((start @ end).clamp(-1, 1))
    shares = torch.linspace(0, 1, _STEPS)
    if float(angle) < 1e-4:
        return [start for _ in shares]
    return [
        (torch.sin((1 - share) * angle) * start + torch.sin(share * angle) * end) / torch.sin(angle)
        for share in shares
    ]
