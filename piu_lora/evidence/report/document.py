"""The report as a document: report.json, validated by the schema that ships beside this module. It names
nobody.
"""

import functools
import json
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from piu_lora.errors import BadInput
from piu_lora.evidence.report.consistency import contradictions, not_finite
from piu_lora.evidence.report.public import publishable

if TYPE_CHECKING:
    from jsonschema import Draft202012Validator, ValidationError

__all__ = ["REPORT_FORMAT", "SECTIONS", "merged", "read_report", "schema", "to_json", "validate"]

REPORT_FORMAT = "piu_lora.report/2"
SECTIONS = ("evaluation", "audit")


@functools.cache
def schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of the document."""
    loaded: dict[str, Any] = json.loads(
        files(__package__).joinpath("report.schema.json").read_text(encoding="utf-8")
    )
    return loaded


def validate(document: dict[str, Any]) -> None:
    """Raise BadInput where the document is not of the form, or contradicts itself.

    Checked: the schema (every key, type and range), that every number is finite, and what a schema cannot
        say: a table's rows are as
    wide as its head, a density has one value for each bin, an interval's ends are in order, a verdict passes
    only if all its lines do.

    Raises:
        BadInput: names the JSON path, what stands there and what was expected.
    """
    found = document.get("format")
    if found != REPORT_FORMAT:
        raise BadInput(
            f"report: $.format is {found!r}, expected {REPORT_FORMAT!r}; write the report anew with this version"
        )
    for path, value in not_finite(document):
        raise BadInput(
            f"report: {path} is {value!r}, expected a finite number; use null, and say why it could not be measured"
        )
    error = _worst(_validator(), document)
    if error is not None:
        raise BadInput(f"report: {error.json_path} {_expected(error)}")
    for path, problem in contradictions(document):
        raise BadInput(f"report: {path} {problem}")


@functools.cache
def _validator() -> "Draft202012Validator":
    from jsonschema import Draft202012Validator
    from jsonschema.validators import extend

    # Python's own measurements come as tuples, which JSON writes as arrays.
    arrays = Draft202012Validator.TYPE_CHECKER.redefine(
        "array", lambda _, value: isinstance(value, list | tuple)
    )
    made: Draft202012Validator = extend(Draft202012Validator, type_checker=arrays)(schema())  # type: ignore[no-untyped-call]
    return made


def _worst(validator: "Draft202012Validator", document: dict[str, Any]) -> "ValidationError | None":
    from jsonschema.exceptions import best_match

    found: ValidationError | None = best_match(validator.iter_errors(document))
    return found


def _expected(error: "ValidationError") -> str:
    """What stands there and what should, short enough for a terminal."""
    value = error.instance
    quoted = (
        repr(value)
        if isinstance(value, str | int | float | bool | None)
        else f"a value of type {type(value).__name__}"
    )
    described = (
        f" ({error.schema['description']})"
        if isinstance(error.schema, dict) and "description" in error.schema
        else ""
    )
    wanted: Any = error.validator_value
    match error.validator:
        case "type":
            kinds = wanted if isinstance(wanted, str) else " or ".join(wanted)
            return f"is {quoted[:80]}, expected {kinds}{described}"
        case "enum" | "const":
            return f"is {quoted[:80]}, expected {wanted!r}{described}"
        case "minimum" | "maximum" | "exclusiveMinimum" | "exclusiveMaximum":
            return f"is {quoted[:80]}, expected {error.validator} {wanted}{described}"
        case _:
            return f"is wrong: {error.message[:240]}{described}"


def to_json(document: dict[str, Any]) -> str:
    """The validated document as JSON text: indented, in its own order, which tables keep.

    Raises:
        BadInput: as ``validate``.
    """
    validate(document)
    return json.dumps(document, indent=2, allow_nan=False, ensure_ascii=False) + "\n"


def read_report(path: Path) -> dict[str, Any]:
    """The validated document of a report.json.

    Raises:
        BadInput: the file is absent, no JSON, or not of the form.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadInput(f"no report at {path}; write one with piu-lora evaluate or piu-lora audit") from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise BadInput(f"{path} is not JSON: {error}") from None
    if not isinstance(document, dict):
        raise BadInput(f"{path} holds a {type(document).__name__}, expected an object")
    validate(document)
    return document


def merged(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """A new run's report with the sections of an older one that the new run does not write.

    Everything else (environment, seed, settings) is the new run's; so is the verdict, unless the new run
    judged nothing. A public report stays public: the older one's sections are laid in by their public form.

    Raises:
        BadInput: the two are about different weights.
    """
    before, after = (document["adapter"]["weights_sha256"] for document in (old, new))
    if before != after:
        raise BadInput(
            f"the report there is about other weights ({before[:12]}, this adapter has {after[:12]}); choose another folder or remove it"
        )
    kept = publishable(old) if new["public"] else old
    sections = {name: kept[name] for name in SECTIONS if new.get(name) is None and kept.get(name) is not None}
    return {
        **new,
        **sections,
        "verdict": new["verdict"] or kept["verdict"],
        "person": new["person"] or kept["person"],
    }
