"""The methods of forgetting: each owns its objective and is found by name."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol, Self, TypeVar

import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel

from piu_lora.config import ForgetConfig
from piu_lora.errors import BadInput
from piu_lora.model.factors import Factors

__all__ = [
    "METHODS",
    "Draw",
    "Ground",
    "Method",
    "Objective",
    "Problem",
    "Solution",
    "Student",
    "closed_form",
    "find_method",
    "register",
]


class Draw(Protocol):
    """The random inputs of one optimiser step; slices are micro-batches."""

    def __getitem__(self, rows: slice) -> Self: ...


D = TypeVar("D", bound=Draw)


class Objective(Protocol[D]):
    """What the training loop minimises."""

    def draw(self, count: int, generator: torch.Generator) -> D:
        """The inputs of a step with ``count`` samples."""

    def loss(self, draw: D) -> tuple[torch.Tensor, dict[str, float]]:
        """The mean loss over a draw, and its terms for the log."""


class Rows(Protocol):
    """Embeddings by index: a tensor (m, d), or a bank's rows that are read only where they are asked for."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: torch.Tensor) -> torch.Tensor: ...


@dataclass(frozen=True)
class Problem:
    """Who is forgotten, who replaces them, who stays: unit embeddings, on the CPU."""

    forget: torch.Tensor  # (n, d) training embeddings of the forgotten person
    anchor: torch.Tensor  # (d,)
    retain: Rows  # (m, d) training embeddings of everybody else


@dataclass(frozen=True)
class Student:
    """The model under training, as plain parts."""

    unet: UNet2DConditionModel  # adapter attached
    encode: Callable[[torch.Tensor], torch.Tensor]  # (n, d) embeddings -> (n, length, hidden) conditions
    adapters_off: Callable[[], AbstractContextManager[None]]
    add_noise: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
    timesteps: int  # of the noise schedule the base was trained with


@dataclass(frozen=True)
class Ground:
    """What a closed form stands on.

    Attributes:
        pipe: the bare base; given back as it was.
        retained: ``E[x x^T]`` by module, (in, in) float64, of what layers see under everybody else's conditions; of one layer
            that sees the condition for all that do.
    """

    pipe: StableDiffusionPipeline
    retained: Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Solution:
    """A finished change, and what is worth knowing of the systems that gave it."""

    change: Mapping[str, Factors]
    facts: dict[str, Any] = field(default_factory=dict)


Build = Callable[[Problem, Student, ForgetConfig], Objective[Any]]
Solve = Callable[[Problem, Ground, ForgetConfig], Solution]


@dataclass(frozen=True)
class Method:
    """A registered method: an objective to train, or a closed form."""

    name: str
    label: str
    paper: str
    build: Build | None = None
    solve: Solve | None = None


METHODS: dict[str, Method] = {}


def register(name: str, label: str, paper: str) -> Callable[[Build], Build]:
    """Add a method to the registry."""

    def decorate(build: Build) -> Build:
        METHODS[name] = Method(name, label, paper, build=build)
        return build

    return decorate


def closed_form(name: str, label: str, paper: str) -> Callable[[Solve], Solve]:
    """Add a method that needs no training to the registry."""

    def decorate(solve: Solve) -> Solve:
        METHODS[name] = Method(name, label, paper, solve=solve)
        return solve

    return decorate


def find_method(name: str) -> Method:
    """The method of that name.

    Raises:
        BadInput: unknown; the message lists the known ones.
    """
    if name not in METHODS:
        raise BadInput(f"unknown method {name!r}; known: {', '.join(sorted(METHODS))}")
    return METHODS[name]
