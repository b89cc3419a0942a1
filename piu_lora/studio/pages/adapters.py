"""The adapters at hand, as a choice, and how others are opened."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio

from piu_lora.errors import BadInput, PiuLoraError
from piu_lora.studio.elements import render
from piu_lora.studio.pages.base import Studio, person_box, quiet_event
from piu_lora.studio.visitors import MadeAdapter, Visitor

__all__ = ["AdapterChoice", "chosen"]

_NONE = "None at hand yet: make one on the page Forget, or open one below."
_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*(@[\w./-]+)?")


class AdapterChoice:
    """Which of the adapters at hand; those of the page Forget are there by themselves."""

    def __init__(self, studio: Studio, name: str, *, several: bool = True) -> None:
        self._studio, self._name, self._several = studio, name, several
        kind = gradio.CheckboxGroup if several else gradio.Radio
        self.component = kind(
            [], label="Adapters" if several else "Adapter", info=_NONE, elem_id=f"{name}-adapters"
        )
        where = "A folder of this machine, or a Hub id" if studio.files else "A Hub id"
        with gradio.Accordion("Open another adapter", open=False):
            place = gradio.Textbox(label=where, placeholder="USER/NAME", max_lines=1)
            person = person_box("Whom it forgets, if you know")
            button = gradio.Button("Open", size="sm")
            note = gradio.HTML("", apply_default_css=False)
        button.click(self._open, [place, person], [self.component, note], **quiet_event())

    def update(self, visitor: Visitor, seen: dict[str, Any]) -> Any:
        """The choice where there are other adapters than were seen."""
        keys = tuple(visitor.adapters)
        if seen.get(f"{self._name}.adapters") == keys:
            return gradio.skip()
        first = f"{self._name}.adapters" not in seen or not seen[f"{self._name}.adapters"]
        seen[f"{self._name}.adapters"] = keys
        return self._choices(visitor, keys[-1] if first and keys else None)

    def _choices(self, visitor: Visitor, pick: str | None) -> Any:
        choices = [(one.name, key) for key, one in visitor.adapters.items()]
        value = {} if pick is None else {"value": [pick] if self._several else pick}
        return gradio.update(choices=choices, info="" if choices else _NONE, **value)

    def _open(self, request: gradio.Request, place: str, person: str) -> list[Any]:
        visitor = self._studio.visitor(request)
        try:
            key = _opened(self._studio, visitor, (place or "").strip(), (person or "").strip())
        except PiuLoraError as error:
            return [gradio.skip(), render("fault", words=str(error))]
        return [self._choices(visitor, key), "<p class='note done' role='status'>Opened.</p>"]


def _opened(studio: Studio, visitor: Visitor, place: str, person: str) -> str:
    studio.bench.require_open()
    from piu_lora.adapter import fetch_adapter, open_adapter

    if not place:
        raise BadInput("no adapter is named; write a folder or a Hub id")
    if studio.files:
        adapter = open_adapter(place)
    elif _HUB_ID.fullmatch(place):
        adapter = open_adapter(fetch_adapter(place))
    else:
        raise BadInput(f"{place[:80]!r} is no Hub id; write USER/NAME or USER/NAME@REVISION")
    who = person if not person or person in studio.bench.bank else ""
    if person and not who:
        studio.bench.bank.index(person)  # refuses it, with the closest ids
    name = f"{who or Path(adapter.path).name}, {adapter.receipt.method}"
    if who or adapter.id not in visitor.adapters:  # else whom it forgets is known already
        visitor.adapters[adapter.id] = MadeAdapter(adapter.path, who, name)
    return str(adapter.id)


def chosen(keys: Sequence[str] | str | None) -> tuple[str, ...]:
    """The adapters that are chosen.

    Raises:
        BadInput: none is.
    """
    several = (keys,) if isinstance(keys, str) else tuple(keys or ())
    if not several:
        raise BadInput("no adapter is chosen; make one on the page Forget, or open one, and choose it")
    return several
