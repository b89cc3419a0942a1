"""Documents of JSON by pydantic: the types of their values, and what is wrong with them in one line.

Reports are frozen models (``Document``, ``parsed``); receipts and headers of banks, which keep what a later
version adds, name their first problem by ``first_problem``.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal, NoReturn, TypeVar

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, Strict, ValidationError, WrapValidator

from piu_lora.errors import BadInput

__all__ = [
    "Amount",
    "Contradiction",
    "Cosine",
    "Count",
    "Document",
    "Many",
    "Number",
    "Share",
    "Text",
    "Word",
    "as_written",
    "first_problem",
    "from_json",
    "parsed",
    "refuse_constant",
]


def as_written(value: object, check: Callable[[object], float]) -> float:
    """A validator (``WrapValidator(as_written)``): whole numbers stay so, to be written as before."""
    checked = check(value)
    return value if type(value) is int else checked


_READ, _WRITE = WrapValidator(as_written), PlainSerializer(lambda value: value)
Number = Annotated[float, _READ, _WRITE]
Share = Annotated[float, Field(ge=0, le=1), _READ, _WRITE]
Cosine = Annotated[float, Field(ge=-1, le=1), _READ, _WRITE]
Amount = Annotated[float, Field(ge=0), _READ, _WRITE]
Count = Annotated[int, Field(ge=0)]
Word = Annotated[str, Field(min_length=1)]
# Of files that may come from anywhere.
Text = Annotated[str, Field(strict=True, max_length=4096)]
_DIGITS = 20  # of the largest integer of 64 bits
# An array of JSON is a tuple here; ``Annotated[tuple[X, ...], Many]`` takes both.
Many = Strict(False)


class Document(BaseModel):
    """A base for documents and their parts: frozen, strict, no unknown key, no NaN."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    def __bool__(self) -> Literal[True]:
        """Always: ``part and part.figure`` is the figure of a part, or None where there is no part."""
        return True

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON; keys that were absent stay absent."""
        return self.model_dump(mode="json", exclude_unset=True)


class Contradiction(ValueError):
    """Parts of a document that do not belong together.

    Attributes:
        path: from the model that noticed it, e.g. ``.lines[0].passed``.
    """

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(problem)
        self.path = path


M = TypeVar("M", bound=BaseModel)


def parsed(kind: type[M], values: object, name: str) -> M:
    """``values`` as a model.

    Args:
        name: of the document, as messages begin with it.

    Raises:
        BadInput: names the JSON path, what stands there and what was expected.
    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise BadInput(f"{name}: {_problem(error, values)}") from None


def from_json(text: str | bytes) -> Any:
    """The values of a JSON text that may come from anywhere; unlike ``json.loads``, only with numbers that
    every program reads alike.

    Raises:
        ValueError: no JSON, nested too deeply, NaN or infinity, a number beyond the range of a double, or an
            integer of more digits than 64 bits hold.
    """
    try:
        return json.loads(text, parse_constant=refuse_constant, parse_float=_finite, parse_int=_whole)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def refuse_constant(name: str) -> NoReturn:
    """For ``json.loads(text, parse_constant=refuse_constant)``: NaN and infinity are no JSON."""
    raise ValueError(f"the value {name} is no number of JSON")


def _finite(digits: str) -> float:
    value = float(digits)
    return value if math.isfinite(value) else refuse_constant(digits[:40])


def _whole(digits: str) -> int:
    if len(digits) <= _DIGITS and -(2**63) <= (value := int(digits)) < 2**64:
        return value
    raise ValueError(f"the integer {digits[:20]}{'...' if len(digits) > 20 else ''} has more than 64 bits")


def first_problem(error: ValidationError, document: str) -> str:
    """What is wrong first, as ``members.0.weight = 'x': input should be a valid number``.

    Args:
        document: what the values are, for a key that it does not have: ``a receipt``.
    """
    first = error.errors(include_url=False)[0]
    path = ascii(".".join(str(step)[:60] for step in first["loc"]))[1:-1]
    if first["type"] == "missing":
        return f"{path} is missing"
    if first["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        return f"{path!r} is no field of {document}"
    message = _in_words_of_json(first["msg"].removeprefix("Value error, "))
    return f"{path} = {first['input']!r:.60}: {message[:1].lower()}{message[1:]}"


def _problem(error: ValidationError, values: object) -> str:
    """The first error, in one line."""
    errors = error.errors()
    first = errors[0]
    path, value = _located(first["loc"], values)
    reason, kind = first.get("ctx", {}).get("error"), first["type"]
    if isinstance(reason, Contradiction):
        return f"{path}{reason.path} {reason}"
    if kind == "missing":
        return f"{path} lacks {first['loc'][-1]!r}"
    if kind == "finite_number":
        return f"{path} is {value!r}, expected a finite number; use null, and say why it was not measured"
    if kind == "extra_forbidden":
        return f"{path} is unknown here"
    if reason is not None:
        return f"{path} {reason}"
    expected = dict.fromkeys(
        _expected(other) for other in errors if _located(other["loc"], values)[0] == path
    )
    return f"{path} is {_quoted(value)}, expected {' or '.join(expected)}"[:500]


def _located(steps: Sequence[int | str], values: object) -> tuple[str, object]:
    """The JSON path of an error, and what stands there; steps that only pydantic has are left out."""
    path = "$"
    for step in steps:
        if isinstance(values, Mapping) and step in values:
            path += f".{step}" if str(step).isidentifier() else f"[{step!r}]"
            values = values[step]
        elif isinstance(values, list | tuple) and isinstance(step, int) and step < len(values):
            path, values = f"{path}[{step}]", values[step]
        elif step == "[key]":
            return path, path.rpartition(".")[2]
    return path, values


def _expected(error: Any) -> str:
    return _in_words_of_json(str(error["msg"]).removeprefix("Input should be ")).removeprefix("a valid ")


def _in_words_of_json(message: str) -> str:
    """A message of pydantic's with arrays and objects instead of tuples and dictionaries."""
    message = message.replace("a dictionary", "an object").replace("dictionary", "object")
    return message.replace("a valid tuple", "a valid array")


def _quoted(value: object) -> str:
    plain = isinstance(value, str | int | float | bool | None)
    return repr(value)[:80] if plain else f"a value of type {type(value).__name__}"
