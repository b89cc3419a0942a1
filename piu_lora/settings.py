"""Settings: frozen dataclasses, read from TOML and from ``section.key=value`` pairs; unknown keys fail with
the nearest one.
"""

import contextlib
import dataclasses
import difflib
import tomllib
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import tomli_w

from piu_lora.errors import BadInput

__all__ = ["Settings", "parted", "require"]


def require(condition: bool, name: str, value: object, expected: str) -> None:
    """Raise ``BadInput`` that quotes the value unless the condition holds."""
    if not condition:
        raise BadInput(f"{name} = {value!r} is out of range: expected {expected}")


def parted(pairs: Iterable[str], section: str) -> tuple[list[str], list[str]]:
    """The ``section.key=value`` pairs of one section, without its name, and all others."""
    pairs, start = list(pairs), f"{section}."
    return [pair.removeprefix(start) for pair in pairs if pair.startswith(start)], [
        pair for pair in pairs if not pair.startswith(start)
    ]


@dataclass(frozen=True)
class Settings:
    """A base for groups of settings; fields may be groups themselves."""

    def updated(self, values: Mapping[str, Any]) -> Self:
        """A copy with nested ``values`` laid over it; unknown keys and wrong types are errors."""
        return _overlay(self, values, "")

    def updated_from_toml(self, path: Path) -> Self:
        """A copy with the settings of a TOML file laid over it."""
        try:
            return self.updated(tomllib.loads(path.read_text()))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise BadInput(f"cannot read the settings file {str(path)!r}: {error}") from error

    def updated_from_pairs(self, pairs: Iterable[str]) -> Self:
        """A copy with ``section.key=value`` strings laid over it, checked together; values are read as TOML,
        else as text.
        """
        merged: dict[str, Any] = {}
        for pair in pairs:
            key, separator, text = pair.partition("=")
            if not separator:
                raise BadInput(
                    f"the setting {pair!r} has no '='; write it as section.key=value, for example train.steps=200"
                )
            *sections, last = key.strip().split(".")
            place = merged
            for section in sections:
                place = place.setdefault(section, {})
                if not isinstance(place, dict):
                    raise BadInput(f"the setting {pair!r}: {section!r} is a value, not a section")
            place[last] = _parse(text)
        return self.updated(merged)

    def to_dict(self) -> dict[str, Any]:
        """Nested plain values, ready for JSON or TOML."""
        return dataclasses.asdict(self)

    def to_toml(self) -> str:
        """The settings as a TOML file that ``updated_from_toml`` reads back."""
        return tomli_w.dumps(self.to_dict())


def _parse(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text.strip()}")["value"]
    except tomllib.TOMLDecodeError:
        return text.strip()


_Section = typing.TypeVar("_Section")


def _overlay(config: _Section, values: Mapping[str, Any], prefix: str) -> _Section:
    known = typing.get_type_hints(type(config))
    changes: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
            hint = (
                f"did you mean {prefix}{close[0]!s}?"
                if close
                else f"known here: {', '.join(prefix + k for k in known)}"
            )
            raise BadInput(f"unknown setting {name!r}: {hint}")
        current = getattr(config, key)
        if dataclasses.is_dataclass(current):
            if not isinstance(value, Mapping):
                first = dataclasses.fields(current)[0].name
                raise BadInput(
                    f"{name} = {value!r} is a section: set one of its keys, for example {name}.{first}"
                )
            changes[key] = _overlay(current, value, f"{name}.")
        else:
            changes[key] = _typed(known[key], value, name)
    return dataclasses.replace(config, **changes)  # type: ignore[type-var]


def _typed(kind: Any, value: Any, name: str) -> Any:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        return _one_of(arguments, value, name)
    if origin is Literal and value in arguments:
        return value
    if origin is tuple and isinstance(value, list | tuple):
        with contextlib.suppress(BadInput):
            return tuple(_typed(arguments[0], each, name) for each in value)
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        if not abs(value) < 1e300:
            raise BadInput(f"{name} = {value!r} is out of range: expected a finite number")
        return float(value)
    if type(value) is kind:
        return value
    raise BadInput(f"{name} = {value!r} has the wrong type: expected {_wanted(kind)}")


def _wanted(kind: Any) -> str:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is Literal:
        return f"one of {list(arguments)}"
    if origin is tuple:
        return "a list of strings" if arguments[0] is str else "a list of numbers"
    return str(kind.__name__)


def _one_of(kinds: tuple[Any, ...], value: Any, name: str) -> Any:
    """A value of the first type that takes it."""
    wanted = []
    for kind in kinds:
        try:
            return _typed(kind, value, name)
        except BadInput as error:
            wanted.append(str(error).rpartition("expected ")[2])
    raise BadInput(f"{name} = {value!r} has the wrong type: expected {' or '.join(wanted)}")
