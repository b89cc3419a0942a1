"""Explore: adapters under other settings, where the forgetting ends, and who changed how much."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio

from piu_lora.errors import BadInput
from piu_lora.studio.elements import render
from piu_lora.studio.pages.adapters import AdapterChoice, chosen
from piu_lora.studio.pages.base import Area, Studio, Work, person_box, quiet_event
from piu_lora.studio.queue import Job
from piu_lora.studio.visitors import FROM_PHOTOGRAPHS, Visitor
from piu_lora.studio.work.explore import BankMap, Drawn, Look, Walk, draw_work, map_work, walk_work

__all__ = ["ExplorePage"]


class ExplorePage:
    """The second tab."""

    def __init__(self, studio: Studio) -> None:
        self._studio = studio
        with gradio.Row():
            with gradio.Column(scale=5, min_width=300):
                self.adapters = AdapterChoice(studio, "explore")
                self.person = person_box(
                    "Person", info="Empty: whom the first adapter forgets.", elem_id="explore-person"
                )
                self.strength = gradio.Slider(
                    0, 1.5, value=1, step=0.05, label="Strength", elem_id="explore-strength"
                )
                self.negative = gradio.Checkbox(
                    label="Allow a negative strength", info="It brings the forgotten person out."
                )
                with gradio.Accordion("How faces are drawn", open=False):
                    self.steps = gradio.Slider(
                        0, 50, value=0, step=1, label="Steps (0: the base's own)", elem_id="explore-steps"
                    )
                    self.guidance = gradio.Slider(
                        0, 8, value=0, step=0.1, label="Guidance (0: the base's own)"
                    )
                    self.prompt = gradio.Textbox(
                        label="Prompt",
                        placeholder="the base's own",
                        max_lines=1,
                        info="Holds the word id once.",
                    )
                    self.seed = gradio.Number(value=0, precision=0, minimum=0, label="Seed")
                self.neighbour = person_box("Walk to", info="Empty: the nearest neighbour.")
                with gradio.Row():
                    draw = gradio.Button("Draw", variant="primary", elem_id="explore-draw", min_width=72)
                    walk = gradio.Button("Walk", elem_id="explore-walk", min_width=72)
                    over = gradio.Button("Map", elem_id="explore-map", min_width=72)
            with gradio.Column(scale=6, min_width=300, elem_classes="area"):
                self.area = Area(studio, "explore", self._shown)
        self.negative.change(
            lambda yes: gradio.update(minimum=-1 if yes else 0), self.negative, self.strength, **quiet_event()
        )
        inputs = [
            self.adapters.component,
            self.person,
            self.strength,
            self.negative,
            self.steps,
            self.guidance,
            self.prompt,
            self.seed,
        ]
        draw.click(self.area.started(self._draw), inputs, self.area.outputs, **quiet_event())
        walk.click(
            self.area.started(self._walk), [self.neighbour, *inputs], self.area.outputs, **quiet_event()
        )
        over.click(self.area.started(self._map), inputs, self.area.outputs, **quiet_event())
        self.area.result.click(self._point, inputs, self.area.outputs, **quiet_event())

    @property
    def outputs(self) -> list[Any]:
        """What ``update`` brings up to date."""
        return [self.adapters.component, *self.area.outputs]

    def update(self, visitor: Visitor, seen: dict[str, Any]) -> list[Any]:
        """What has changed since it was last seen."""
        return [self.adapters.update(visitor, seen), *self.area.update(visitor, seen)]

    def _draw(self, visitor: Visitor, *values: Any) -> tuple[str, Work]:
        look = self._look(visitor, *values)
        return f"draw {look.person}", draw_work(self._studio.bench, visitor, look)

    def _walk(self, visitor: Visitor, neighbour: str, *values: Any) -> tuple[str, Work]:
        look, other = self._look(visitor, *values), (neighbour or "").strip()
        if other:
            self._studio.bench.bank.index(other)
        work = walk_work(self._studio.bench, visitor, look, other)
        return f"walk from {look.person} to {other or 'the nearest neighbour'}", work

    def _map(self, visitor: Visitor, *values: Any) -> tuple[str, Work]:
        look = self._look(visitor, *values, anybody=True)
        return "map of the bank", map_work(self._studio.bench, visitor, look)

    def _point(self, request: gradio.Request, event: gradio.EventData, *values: Any) -> list[Any]:
        """A click on somebody of the map draws them."""

        def begin(visitor: Visitor, *inputs: Any) -> tuple[str, Work]:
            person = str(event._data["person"])
            look = replace(self._look(visitor, *inputs, anybody=True), person=person, file=None)
            return f"draw {look.person}", draw_work(self._studio.bench, visitor, look)

        return self.area.started(begin)(request, *values)

    def _look(self, visitor: Visitor, *values: Any, anybody: bool = False) -> Look:
        """What the form asks for; the values are those of ``inputs``."""
        keys, person, strength, negative, steps, guidance, prompt, seed = values
        adapters = chosen(keys)
        bank, named = self._studio.bench.bank, (person or "").strip()
        who, file = named or visitor.adapter(adapters[0]).person, None
        if not named and who not in bank and who:
            who, file = FROM_PHOTOGRAPHS, Path(who)
        elif who and not anybody:
            bank.index(who)  # refuses whatever is no id of the bank
        elif not anybody:
            raise BadInput("whom the adapter forgets is not known; write the id of somebody of the bank")
        if strength < 0 and not negative:
            raise BadInput(f"strength = {strength:g} is below 0; allow it first")
        return Look(
            adapters,
            who,
            float(strength),
            bool(negative),
            int(steps),
            float(guidance),
            (prompt or "").strip(),
            int(seed or 0),
            file,
        )

    def _shown(self, job: Job | None) -> str:
        one = job.result if job else None
        kinds = {Drawn: "drawn", Walk: "walk", BankMap: "map"}
        return render("explore", kind=kinds.get(type(one), ""), one=one)
