"""Values of files that may come from anywhere: what pydantic finds wrong with them, in one line."""

from typing import Annotated, NoReturn

from pydantic import Field, ValidationError

__all__ = ["Text", "first_problem", "refuse_constant"]

Text = Annotated[str, Field(strict=True, max_length=4096)]


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
    message = first["msg"].removeprefix("Value error, ")
    message = message.replace("a dictionary", "an object").replace("dictionary", "object")
    return f"{path} = {first['input']!r:.60}: {message[:1].lower()}{message[1:]}"


def refuse_constant(name: str) -> NoReturn:
    """For ``json.loads(text, parse_constant=refuse_constant)``: NaN and infinity are no JSON."""
    raise ValueError(f"the value {name} is no number of JSON")
