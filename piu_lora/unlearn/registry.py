"""The methods of forgetting: each owns its objective and is found by name."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol, Self, TypeVar

import torch
from diffusers import UNet2DConditionModel

from piu_lora.config import ForgetConfig
from piu_lora.errors import BadInput

__all__ = ["METHODS", "Draw", "Method", "Objective", "Problem", "Student", "find_method", "register"]


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


Build = Callable[[Problem, Student, ForgetConfig], Objective[Any]]


@dataclass(frozen=True)
class Method:
    """A registered method."""

    name: str
    label: str
    paper: str
    build: Build


METHODS: dict[str, Method] = {}


def register(name: str, label: str, paper: str) -> Callable[[Build], Build]:
    """Add a method to the registry."""

    def decorate(build: Build) -> Build:
        METHODS[name] = Method(name, label, paper, build)
        return build

    return decorate


def find_method(name: str) -> Method:
    """The method of that name.

    Raises:
        BadInput: unknown; the message lists the known ones.
    """
    if name not in METHODS:
        raise BadInput(f"unknown method {name!r}; known: {', '.join(sorted(METHODS))}")
    return METHODS[name]
