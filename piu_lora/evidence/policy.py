"""What a report must show to pass: limits in a TOML file, judged line by line. What was not measured does not
pass.
"""

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Self

from piu_lora.errors import BadInput
from piu_lora.evidence.figures import far_name
from piu_lora.evidence.gallery import FARS
from piu_lora.settings import Settings, out_of_range

__all__ = ["EvaluationLimits", "Line", "Policy", "judge", "verdict_of"]

Limit = float | Literal["off"]
_RETAINED = {"random": "retained people", "nearest": "the nearest neighbours", "anchor": "the anchor"}


class EvaluationLimits(Settings, section="evaluation"):
    """Limits on an evaluation's figures; ``"off"`` judges nothing. ISM limits are multiples of the value
    before.
    """

    # Does it forget?
    forget_ism: Limit = 0.5  # at most: ISM after / before
    recognised: Limit = (
        0.05  # at most: images that the bank's nearest centroid gives back to the person (AccU)
    )
    verified: Limit = 0.05  # at most: images that verify as the person
    leak: Limit = "off"  # at most: Leak@8
    no_face: Limit = 0.1  # at most: images of the forgotten person without a face, which forgets nobody
    # Whom does it harm?
    random_ism: Limit = 0.95  # at least
    nearest_ism: Limit = 0.9
    anchor_ism: Limit = 0.9
    random_verified: Limit = (
        0.95  # at least: share of images that verify as whom they were made for, after / before
    )
    nearest_verified: Limit = 0.9
    landing: Limit = (
        "off"  # at most: images of the forgotten person that verify as one and the same real person
    )
    # Are they still good pictures?
    sharpness: Limit = 0.25  # at least; a floor, since faces differ: everybody else's after / before, the forgotten person's / theirs before
    kid: Limit = "off"  # at most: KID after - before of retained people, x 1000
    # Can these figures be believed?
    seen_before: Limit = 0.5  # at least: images of the person by the untouched base that verify
    strangers: Limit = 0.05  # at most: images of others by the untouched base that verify as the person
    doubles: Limit = 0.0  # at most: identities of the bank that are likely the person under another id


@dataclass(frozen=True)
class Bound:
    """A limit on one of an attack's figures."""

    key: str  # attack.figure
    limit: float
    relation: Literal["<=", ">="]


@dataclass(frozen=True)
class Policy:
    """Every limit, the false-accept rate that verification is judged at, and what the policy is called in
    reports.
    """

    name: str = "default"
    far: float = 1e-3
    evaluation: EvaluationLimits = field(default_factory=EvaluationLimits)
    audit: tuple[Bound, ...] = ()

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """Read a policy file: ``far``, a table ``[evaluation]`` laid over the defaults, and a table
        ``[audit]``.

        In ``[audit]`` a key names an attack and one of its figures, and its value has a ``max`` or a ``min``:
        ``"cone.radius" = {min = 0.3}``.

        Raises:
            BadInput: unreadable, unknown keys, values out of range.
        """
        path = Path(path)
        try:
            stated = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise BadInput(f"cannot read the policy {str(path)!r}: {reason}") from error
        if unknown := sorted(stated.keys() - {"far", "evaluation", "audit"}):
            raise BadInput(
                f"the policy {str(path)!r} has an unknown key {unknown[0]!r}; known: far, evaluation, audit"
            )
        far = stated.get("far", cls.far)
        try:
            if far not in FARS:
                rates = ", ".join(map(far_name, FARS))
                raise out_of_range("far", far, f"one of the calibrated rates, {rates}")
            evaluation = EvaluationLimits().updated(stated.get("evaluation", {}))
            return cls(path.name, far, evaluation, tuple(_bounds(stated.get("audit", {}))))
        except BadInput as error:
            raise BadInput(f"the policy {str(path)!r}: {error}") from error

    @classmethod
    def only(cls, name: str, **limits: float) -> Self:
        """A policy with these limits on an evaluation and no others."""
        everything: dict[str, Any] = dict.fromkeys(EvaluationLimits.model_fields, "off")
        return cls(name, evaluation=EvaluationLimits(**{**everything, **limits}))

    def tightened(self, **limits: float) -> Self:
        """This policy with other limits on an evaluation."""
        return replace(self, evaluation=self.evaluation.updated(limits))


def _bounds(stated: Any) -> Iterator[Bound]:
    if not isinstance(stated, Mapping):
        raise BadInput(f"audit = {stated!r} is no table; write [audit] and a line for each figure")
    for key, value in stated.items():
        for end, relation in (("max", "<="), ("min", ">=")):
            if isinstance(value, Mapping) and list(value) == [end] and isinstance(value[end], int | float):
                yield Bound(key, float(value[end]), relation)  # type: ignore[arg-type]
                break
        else:
            raise BadInput(
                f'audit.{key!r} = {value!r} is no limit; write "attack.figure" = {{max = 0.1}} or {{min = 5}}'
            )


@dataclass(frozen=True)
class Line:
    """One judged figure; a value of None was not measured, for the reason given, and does not pass."""

    name: str
    recognizer: str
    text: str
    value: float | None
    limit: float
    relation: Literal["<=", ">="]
    reason: str = ""

    @property
    def passed(self) -> bool:
        """Met exactly is met."""
        if self.value is None:
            return False
        return self.value <= self.limit if self.relation == "<=" else self.value >= self.limit


def judge(document: Mapping[str, Any], policy: Policy) -> list[Line]:
    """Every line of a policy on the sections that a report has.

    Args:
        document: a report (docs/reference/report.md).
    """
    lines: list[Line] = []
    if (evaluation := document.get("evaluation")) is not None:
        lines += _evaluation_lines(evaluation, policy)
    if (audit := document.get("audit")) is not None:
        lines += _audit_lines(audit, policy)
    return lines


def verdict_of(document: Mapping[str, Any], policy: Policy) -> dict[str, Any]:
    """The verdict as reports carry it."""
    lines = judge(document, policy)
    return {
        "passed": bool(lines) and all(line.passed for line in lines),
        "policy": policy.name,
        "lines": [{**vars(line), "passed": line.passed} for line in lines],
    }


def _evaluation_lines(evaluation: Mapping[str, Any], policy: Policy) -> list[Line]:
    limits, lines = policy.evaluation, []

    def add(
        name: str,
        recognizer: str,
        text: str,
        value: float | None,
        relation: Literal["<=", ">="],
        reason: str = "",
    ) -> None:
        limit = getattr(limits, name)
        if limit != "off":
            lines.append(
                Line(name, recognizer, text, value, limit, relation, reason if value is None else "")
            )

    for recognizer, figures in evaluation["recognizers"].items():
        for name, text, value, relation, reason in _of_recognizer(figures, policy.far):
            add(name, recognizer, text, value, relation, reason)
    quality = evaluation["quality"]
    forget, retain = (quality["sharpness"][side] for side in ("forget", "retain"))
    # Another face is another sharpness: what the forgotten person's images are held to is what this base
    # draws.
    beside = forget["after"] / retain["before"] if retain["before"] else None
    add(
        "sharpness",
        "",
        "sharpness of images of the forgotten person, beside everybody else's before",
        beside,
        ">=",
        "no picture has an edge",
    )
    add(
        "sharpness",
        "",
        "sharpness of images of everybody else, after / before",
        retain["ratio"],
        ">=",
        "no picture has an edge",
    )
    kid = quality["kid"]
    change = None if kid is None else kid["retain"]["delta"]["mean"]
    add(
        "kid",
        "",
        "KID of everybody else, after - before, x 1000",
        change,
        "<=",
        "too few pictures, or no photographs to compare them with",
    )
    doubles = evaluation["doubles"]["count"]
    add("doubles", "", "identities of the bank that are likely the forgotten person", doubles, "<=")
    return lines


def _of_recognizer(
    figures: Mapping[str, Any], far: float
) -> Iterator[tuple[str, str, float | None, Literal["<=", ">="], str]]:
    rate = far_name(far)
    at = f"at a false-accept rate of {rate}"
    why = (
        figures["thresholds"].get(rate, {"refused": "this rate was not calibrated"})["refused"]
        or figures["references"]["refused"]
    )
    verified, leak = figures["verified"].get(rate) or {}, figures["leak"].get(rate)
    forget = verified.get("forget")
    faceless = figures["no_face"]["forget"]
    absent = "no face in any image before"
    yield (
        "forget_ism",
        "likeness (ISM) of the forgotten person, after / before",
        figures["ism"]["forget"]["ratio"],
        "<=",
        absent,
    )
    yield (
        "recognised",
        "images of the forgotten person still recognised (AccU)",
        figures["after"]["acc_u"],
        "<=",
        "",
    )
    yield "verified", f"images of the forgotten person that verify {at}", _mean(forget, "after"), "<=", why
    few = why or "fewer than 8 images of the forgotten person"
    yield "leak", f"Leak@8 {at}", None if leak is None else leak["8"]["after"], "<=", few
    yield (
        "no_face",
        "images of the forgotten person without a face",
        faceless["after"] / faceless["n"],
        "<=",
        "",
    )
    for group, whom in _RETAINED.items():
        yield (
            f"{group}_ism",
            f"likeness (ISM) of {whom}, after / before",
            figures["ism"][group]["ratio"],
            ">=",
            absent,
        )
    for group in ("random", "nearest"):
        kept = _kept(verified.get(group))
        reason = why if verified.get(group) is None else "none of their images verified before"
        yield (
            f"{group}_verified",
            f"images of {_RETAINED[group]} that verify {at}, after / before",
            kept,
            ">=",
            reason,
        )
    bystanders = figures["bystanders"].get(rate)
    where = None if bystanders is None else bystanders.get("landing")
    landing = None if where is None else where["after"]
    yield (
        "landing",
        f"images of the forgotten person that verify as one real person {at}",
        landing,
        "<=",
        why or "a public report does not say",
    )
    yield (
        "seen_before",
        f"images of the forgotten person that verify {at} before: can this be seen at all?",
        _mean(forget, "before"),
        ">=",
        why,
    )
    strangers = figures["strangers"].get(rate)
    yield (
        "strangers",
        f"images of others that verify as the forgotten person {at} before",
        _mean(strangers, None),
        "<=",
        why,
    )


def _mean(estimate: Mapping[str, Any] | None, when: str | None) -> float | None:
    if estimate is None:
        return None
    found: float = (estimate if when is None else estimate[when])["mean"]
    return found


def _kept(verified: Mapping[str, Any] | None) -> float | None:
    if verified is None or verified["before"]["mean"] == 0:
        return None
    kept: float = verified["after"]["mean"] / verified["before"]["mean"]
    return kept


def _audit_lines(audit: Mapping[str, Any], policy: Policy) -> list[Line]:
    found = {
        f"{each['name']}.{name}": value
        for each in audit["attacks"]
        for name, value in each["figures"].items()
    }
    return [
        Line(
            bound.key, "", bound.key.replace(".", ": ").replace("_", " "), found.get(bound.key), bound.limit, bound.relation,
            _absent(bound.key, found),
        )
        for bound in policy.audit
    ]  # fmt: skip


def _absent(key: str, found: Mapping[str, Any]) -> str:
    """Why a figure has no value; empty where it has one."""
    if key not in found:
        return f"no attack of this audit has a figure {key!r}; known: {', '.join(sorted(found)) or 'none'}"
    return "" if found[key] is not None else "the attack could not measure this"
