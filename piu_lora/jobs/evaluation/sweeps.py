"""Sweeps: the same few people and seeds under other conditions, guidance, steps, weights and precision."""

import contextlib
import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from diffusers import StableDiffusionPipeline

from piu_lora.adapter import adapters_disabled, set_weights
from piu_lora.config import ReportConfig
from piu_lora.evidence import Gallery, Measured, Plan, Shot
from piu_lora.evidence.report.sections import Sweep, SweepFigures, SweepPoint
from piu_lora.groups import FORGET, RANDOM, GroupName
from piu_lora.identity import dirichlet_mixtures
from piu_lora.jobs.evaluation.images import ImageMeasurer, Sampling
from piu_lora.jobs.request.request import ErasureRequest

__all__ = ["sweep_images", "sweeps"]

_FAR = 1e-3
_SIDES: tuple[GroupName, ...] = (FORGET, RANDOM)


@dataclass(frozen=True)
class _Set:
    """A few shots of forgotten and retained people, measured before and after: what every sweep compares
    with.
    """

    shots: list[Shot]
    before: Measured
    after: Measured


def sweep_images(plan: Plan, report: ReportConfig) -> int:
    """How many pictures the sweeps generate."""
    few = len(_few(plan, report.sweep_images))
    forgotten = min(report.sweep_images, len(plan.rows_of(FORGET)))
    points = 2 * (len(report.guidance) + len(report.steps) + report.precision) + len(report.weights)
    return points * few + 2 * forgotten * report.mixtures


def sweeps(
    pipe: StableDiffusionPipeline,
    adapter: str,
    request: ErasureRequest,
    plan: Plan,
    measured: tuple[Measured, Measured],
    measurer: ImageMeasurer,
    report: ReportConfig,
) -> list[Sweep]:
    """Every sweep that the settings ask for.

    Args:
        adapter: its name in the pipeline, where it is active with weight 1.
        measured: the plan's pictures, before and after.
    """
    chosen = _few(plan, report.sweep_images)
    if not chosen:
        return []
    shown = _Set([plan.shots[index] for index in chosen], measured[0][chosen], measured[1][chosen])
    sweeper = _Sweeper(pipe, measurer, shown)
    sampling = Sampling.of(request.config.evaluation)
    swept = [
        _sweep(
            "conditions",
            "conditions",
            [sweeper.point("held-out", shown), *_mixtures(sweeper, request, report)],
        ),
        _sweep("guidance", "guidance scale", [*sweeper.settings(sampling, "guidance", report.guidance)]),
        _sweep("steps", "sampling steps", [*sweeper.settings(sampling, "steps", report.steps)]),
        _sweep("weight", "weight of the adapter", _weights(sweeper, adapter, report)),
        _sweep(
            "precision", "precision", [sweeper.point(_name(pipe.unet.dtype), shown), *_half(sweeper, report)]
        ),
    ]
    return [sweep for sweep in swept if len(sweep.points) > 1]


def _few(plan: Plan, count: int) -> list[int]:
    return [index for group in _SIDES for index in plan.rows_of(group)[:count]]


def _sweep(name: str, label: str, points: list[SweepPoint]) -> Sweep:
    if not isinstance(points[0].value, str):
        points = sorted(points, key=lambda point: float(point.value))
    return Sweep(name=name, label=label, unit="", points=tuple(points))


@dataclass(frozen=True)
class _Sweeper:
    """Where sweeps are shot."""

    pipe: StableDiffusionPipeline
    measurer: ImageMeasurer
    shown: _Set

    def again(
        self,
        name: str,
        value: float | str,
        sampling: Sampling | None = None,
        *,
        pipe: StableDiffusionPipeline | None = None,
    ) -> SweepPoint:
        """The same shots under another setting, with the adapter off and on."""
        pipe, shots = pipe or self.pipe, self.shown.shots
        with adapters_disabled(pipe):
            before, _ = self.measurer.generate_and_measure(pipe, f"{name}-before", shots, sampling=sampling)
        after, _ = self.measurer.generate_and_measure(pipe, f"{name}-after", shots, sampling=sampling)
        return self.point(value, _Set(shots, before, after))

    def settings(self, sampling: Sampling, name: str, values: Sequence[float]) -> Iterator[SweepPoint]:
        """The plan's own value of a setting of sampling, then others."""
        yield self.point(getattr(sampling, name), self.shown)
        for value in values:
            changed: dict[str, Any] = {name: value}
            yield self.again(f"{name}-{value:g}", value, replace(sampling, **changed))

    def point(self, value: float | str, measured_set: _Set) -> SweepPoint:
        """The figures of one point, by recognizer and side."""
        figures: dict[str, dict[GroupName, SweepFigures | None] | None] = {
            gallery.name: _figures(gallery, measured_set) for gallery in self.measurer.galleries
        }
        return SweepPoint(value=value, recognizers=figures)


def _figures(gallery: Gallery, measured_set: _Set) -> dict[GroupName, SweepFigures | None]:
    sides: dict[GroupName, SweepFigures | None] = {}
    for side in _SIDES:
        indices = [index for index, shot in enumerate(measured_set.shots) if shot.group == side]
        if not indices:
            continue
        rows = [measured_set.shots[index].row for index in indices]
        refused = side == FORGET and bool(gallery.refused)
        before, after = (
            measured.embedded[gallery.name][indices] for measured in (measured_set.before, measured_set.after)
        )
        sides[side] = SweepFigures(
            before=float((before * gallery.centroids[rows]).sum(dim=1).mean()),
            verified_before=None if refused else _verified(gallery, before, rows),
            after=float((after * gallery.centroids[rows]).sum(dim=1).mean()),
            verified=None if refused else _verified(gallery, after, rows),
        )
    return sides


def _verified(gallery: Gallery, embedded: torch.Tensor, rows: Sequence[int]) -> float | None:
    if isinstance(gallery.thresholds.get(_FAR, ""), str):
        return None
    return float(
        np.mean(
            [
                bool(gallery.verifies(embedding[None], row, _FAR))
                for embedding, row in zip(embedded, rows, strict=True)
            ]
        )
    )


def _mixtures(sweeper: _Sweeper, request: ErasureRequest, report: ReportConfig) -> list[SweepPoint]:
    """The forgotten people under mixtures of all their embeddings, those trained on or not; nobody else."""
    if not report.mixtures:
        return []
    generator = torch.Generator().manual_seed(request.config.seed)
    embeddings_by_row = {
        row: person.subject.embeddings
        for row, person in zip(request.forget_rows, request.people, strict=True)
    }
    shots = [
        replace(shot, embedding=dirichlet_mixtures(embeddings_by_row[shot.row], 1, generator)[0])
        for shot in sweeper.shown.shots
        if shot.group == FORGET
    ]
    with adapters_disabled(sweeper.pipe):
        before, _ = sweeper.measurer.generate_and_measure(sweeper.pipe, "mixtures-before", shots)
    after, _ = sweeper.measurer.generate_and_measure(sweeper.pipe, "mixtures-after", shots)
    return [sweeper.point("mixtures", _Set(shots, before, after))]


def _weights(sweeper: _Sweeper, adapter: str, report: ReportConfig) -> list[SweepPoint]:
    shown = sweeper.shown
    points = [sweeper.point(0.0, replace(shown, after=shown.before)), sweeper.point(1.0, shown)]
    try:
        for weight in report.weights:
            set_weights(sweeper.pipe, {adapter: weight})
            after, _ = sweeper.measurer.generate_and_measure(sweeper.pipe, f"weight-{weight:g}", shown.shots)
            points.append(sweeper.point(weight, replace(shown, after=after)))
    finally:
        set_weights(sweeper.pipe, {adapter: 1.0})
    return points


def _half(sweeper: _Sweeper, report: ReportConfig) -> list[SweepPoint]:
    """The whole pipeline in half precision: float16 on a GPU, bfloat16 on a processor."""
    if not report.precision or sweeper.pipe.unet.dtype != torch.float32:
        return []
    kind = torch.float16 if sweeper.pipe.device.type == "cuda" else torch.bfloat16
    with _cast(sweeper.pipe, kind) as half:
        return [sweeper.again("half", _name(kind), pipe=half)]


@contextlib.contextmanager
def _cast(pipe: StableDiffusionPipeline, kind: torch.dtype) -> Iterator[StableDiffusionPipeline]:
    """A copy in another precision: cast there and back, the pipeline itself would lose digits."""
    half = copy.copy(pipe)
    for part in ("unet", "text_encoder", "vae"):
        setattr(half, part, copy.deepcopy(getattr(pipe, part)).to(kind))
    yield half


def _name(kind: torch.dtype) -> str:
    return {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}[kind]
