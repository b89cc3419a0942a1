"""Settings: frozen pydantic models, read from TOML and from ``section.key=value`` pairs; unknown keys fail
with the nearest one.
"""

import difflib
import importlib
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, Strict, ValidationError

from piu_lora.errors import BadInput
from piu_lora.foreign import read_text
from piu_lora.schema_words import bounds_in_words, type_in_words

__all__ = [
    "Amount",
    "Auto",
    "Cosine",
    "Count",
    "ManyFloats",
    "ManyInts",
    "ManyStrings",
    "Positive",
    "SectionedSettings",
    "Settings",
    "Share",
    "out_of_range",
    "parted",
]

# Types of fields that many settings have; pydantic's Field narrows them further and describes them.
Count = Annotated[int, Field(ge=1)]
Amount = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Cosine = Annotated[float, Field(ge=-1, le=1)]
# Follows from the geometry of the bank (piu_lora/identity/constants.py).
Auto = Literal["auto"]
# A list in TOML and JSON is a tuple here.
ManyStrings = Annotated[tuple[str, ...], Strict(False)]
ManyInts = Annotated[tuple[int, ...], Strict(False)]
ManyFloats = Annotated[tuple[float, ...], Strict(False)]

_OUT_OF_RANGE = frozenset(
    {"greater_than", "greater_than_equal", "less_than", "less_than_equal", "finite_number"}
)


def out_of_range(name: str, value: object, expected: str) -> BadInput:
    """The error for a value that a check of several fields refuses; for bounds of one, ``Field`` has them."""
    return BadInput(f"{name} = {value!r} is out of range: expected {expected}")


def parted(pairs: Iterable[str], section: str) -> tuple[list[str], list[str]]:
    """The ``section.key=value`` pairs of one section, without its name, and all others."""
    pairs, start = list(pairs), f"{section}."
    return [pair.removeprefix(start) for pair in pairs if pair.startswith(start)], [
        pair for pair in pairs if not pair.startswith(start)
    ]


class Settings(BaseModel):
    """A base for groups of settings; fields may be groups themselves.

    A subclass says where it stands, ``class TrainConfig(Settings, section="train")``, so that messages name
    ``train.steps``. Validators raise ``ValueError`` with what was expected of the value.

    Raises:
        BadInput: (by the constructor) an unknown key, a wrong type, a value out of range.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)
    section: ClassVar[str] = ""

    def __init_subclass__(cls, section: str | None = None, **options: Any) -> None:
        super().__init_subclass__(**options)
        if section is not None:
            cls.section = section

    def __init__(self, /, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise BadInput(self._message(error, values)) from None

    def updated(self, values: Mapping[str, Any]) -> Self:
        """A copy with nested ``values`` laid over it; a section is given as its keys, or as a whole."""
        changes: dict[str, Any] = {}
        for key, value in self._renamed(values).items():
            current = self._value(key)
            if isinstance(current, Settings) and not isinstance(value, Settings):
                if not isinstance(value, Mapping):
                    raise BadInput(self._not_a_section(key, value, type(current)))
                value = current.updated(value)
            changes[key] = value
        return type(self)(**{**dict(self), **changes})

    def updated_from_toml(self, path: Path) -> Self:
        """A copy with the settings of a TOML file laid over it."""
        try:
            return self.updated(tomllib.loads(read_text(path)))
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
                    f"the setting {pair!r} has no '='; write it as section.key=value, for example "
                    "train.steps=200"
                )
            *sections, last = key.strip().split(".")
            group = merged
            for section in sections:
                group = group.setdefault(section, {})
                if not isinstance(group, dict):
                    raise BadInput(f"the setting {pair!r}: {section!r} is a value, not a section")
            group[last] = _parsed(text)
        return self.updated(merged)

    def to_dict(self) -> dict[str, Any]:
        """Nested plain values, ready for JSON."""
        return self.model_dump()

    @classmethod
    def names(cls) -> list[str]:
        """The names of the settings, without this section's own."""
        return list(cls.model_fields)

    @classmethod
    def key(cls) -> str:
        """This section's name within the settings that hold it."""
        return cls.section.rpartition(".")[2]

    @classmethod
    def setting_name(cls, key: str) -> str:
        """``section.key``, as people write it."""
        return f"{cls.section}.{key}" if cls.section else key

    @classmethod
    def _renamed(cls, values: Mapping[str, Any]) -> Mapping[str, Any]:
        """The values under today's names; a class whose settings had other names before overrides it."""
        return values

    def _value(self, key: str) -> Any:
        if key not in type(self).model_fields:
            raise BadInput(self._unknown(key))
        return getattr(self, key)

    @classmethod
    def _unknown(cls, key: str) -> str:
        close = difflib.get_close_matches(key, cls.names(), n=1, cutoff=0.5)
        hint = (
            f"did you mean {cls.setting_name(close[0])}?"
            if close
            else f"known here: {', '.join(map(cls.setting_name, cls.names()))}"
        )
        return f"unknown setting {cls.setting_name(key)!r}: {hint}"

    @classmethod
    def _not_a_section(cls, key: str, value: object, kind: "type[Settings]") -> str:
        name = cls.setting_name(key)
        return f"{name} = {value!r} is a section: set one of its keys, for example {name}.{kind.names()[0]}"

    @classmethod
    def _message(cls, error: ValidationError, values: Mapping[str, Any]) -> str:
        """Of the first error, in one line that quotes the value and says what was expected."""
        first = error.errors()[0]
        reason = first.get("ctx", {}).get("error")
        if isinstance(reason, BadInput):
            return str(reason)  # of a section, or of a check of several fields
        key = str(first["loc"][0])
        if first["type"] == "extra_forbidden":
            return cls._unknown(key)
        schema = cls.model_json_schema()["properties"][key]
        related = [other for other in error.errors() if other["loc"][0] == key]
        described = f"{cls.setting_name(key)} = {values[key]!r}"
        if reason is not None:
            return f"{described} is out of range: expected {reason}"
        bad_list = schema.get("type") == "array" and first["type"] in {"literal_error", "too_short"}
        if bad_list or any(other["type"] in _OUT_OF_RANGE for other in related):
            return f"{described} is out of range: expected {bounds_in_words(schema)}"
        return f"{described} has the wrong type: expected {type_in_words(schema)}"


S = TypeVar("S", bound=Settings)


class SectionedSettings(Settings):
    """Settings with further sections, which the modules that read them register.

    Only sections that differ from their defaults are held. The package that registers them is imported when
    one is first asked for by name, and not before.

    Attributes:
        package: whose import registers the sections.
    """

    model_config = ConfigDict(extra="allow")
    package: ClassVar[str] = ""
    _registered: ClassVar[dict[str, type[Settings]]] = {}

    def __init_subclass__(cls, package: str = "", **options: Any) -> None:
        super().__init_subclass__(**options)
        if package:
            cls.package, cls._registered = package, {}

    def __init__(self, /, **values: Any) -> None:
        values = dict(self._renamed(values))
        common = {key: value for key, value in values.items() if key in type(self).model_fields}
        sections = {key: self._section(key, value) for key, value in values.items() if key not in common}
        changed = {key: section for key, section in sections.items() if section != type(section)()}
        super().__init__(**common, **changed)

    @classmethod
    def register_section(cls, kind: type[Settings]) -> None:
        """Make a section known by the last part of ``kind.section``.

        Raises:
            ValueError: the name is another section's or a common setting's.
        """
        name = kind.key()
        if not name or name in cls.model_fields or cls._registered.get(name, kind).section != kind.section:
            raise ValueError(f"{kind.__name__}: a section cannot be called {name!r} here")
        cls._registered[name] = kind

    @classmethod
    def sections(cls) -> dict[str, type[Settings]]:
        """Every registered section, by name."""
        importlib.import_module(cls.package)
        return dict(cls._registered)

    def section_of(self, kind: type[S]) -> S:
        """The settings of a section; its defaults where nothing was set."""
        stored = (self.__pydantic_extra__ or {}).get(kind.key())
        return stored if isinstance(stored, kind) else kind()

    def to_dict(self) -> dict[str, Any]:
        """Nested plain values, ready for JSON, with every section."""
        return self.model_dump() | {
            name: self.section_of(kind).to_dict() for name, kind in self.sections().items()
        }

    @classmethod
    def names(cls) -> list[str]:
        """The names of the common settings and of the sections."""
        return [*cls.model_fields, *cls.sections()]

    def _value(self, key: str) -> Any:
        if key in type(self).model_fields:
            return getattr(self, key)
        return self.section_of(self._section_kind(key))

    @classmethod
    def _section(cls, key: str, value: Any) -> Settings:
        if isinstance(value, Settings) and value.key() == key:
            return value
        kind = cls._section_kind(key)
        if not isinstance(value, Mapping):
            raise BadInput(cls._not_a_section(key, value, kind))
        return kind(**value)

    @classmethod
    def _section_kind(cls, key: str) -> type[Settings]:
        sections = cls.sections()
        if key not in sections:
            raise BadInput(cls._unknown(key))
        return sections[key]


def _parsed(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text.strip()}")["value"]
    except tomllib.TOMLDecodeError:
        return text.strip()
