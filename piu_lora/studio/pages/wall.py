"""A wall of faces: the people of the bank."""

from typing import Any

import gradio

from piu_lora.studio.elements import render
from piu_lora.studio.pages.base import Studio

__all__ = ["Wall"]

_SHOWN = 120  # people on a wall at once; an id that is typed brings up the others


class Wall:
    """The people of the bank as buttons, as soon as the bank is open."""

    def __init__(self, studio: Studio, name: str) -> None:
        self._studio, self._name = studio, name
        self.component = gradio.HTML(
            self._html(), elem_id=f"{name}-people", apply_default_css=False, js_on_load=_PICK
        )

    def update(self, seen: dict[str, Any]) -> list[Any]:
        """The wall where it has not been seen since the bank opened."""
        bench = self._studio.bench
        state = (bench.ready.is_set(), bench.failure)
        if seen.get(f"{self._name}.wall") == state:
            return [gradio.skip()]
        seen[f"{self._name}.wall"] = state
        return [self._html()]

    def _html(self) -> str:
        bench = self._studio.bench
        people = bench.people if bench.ready.is_set() else []
        return render("wall", name=self._name, people=people, shown=_SHOWN, failure=bench.failure)


_PICK = """
element.addEventListener('click', (event) => {
  const tile = event.target.closest('[data-person]');
  if (tile) trigger('click', {person: tile.dataset.person});
});
"""
