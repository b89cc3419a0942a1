"""Forget: pick somebody, or drop photographs, and see them become somebody else."""

from typing import Any

import gradio

from piu_lora.errors import BadInput
from piu_lora.studio.elements import render
from piu_lora.studio.methods import FIRST_METHOD
from piu_lora.studio.pages.base import Area, Studio, Work, quiet_event
from piu_lora.studio.pages.wall import Wall
from piu_lora.studio.queue import Job
from piu_lora.studio.uploads import LARGEST, MOST, thumbnail
from piu_lora.studio.visitors import FROM_PHOTOGRAPHS, Visitor
from piu_lora.studio.work.forget import Forgotten, Wish, forget_work

__all__ = ["ForgetPage"]

_SOURCES = ("Somebody of the bank", "Photographs")


class ForgetPage:
    """The first tab."""

    def __init__(self, studio: Studio) -> None:
        self._studio = studio
        with gradio.Row():
            with gradio.Column(scale=5, min_width=300):
                self.source = gradio.Radio(
                    _SOURCES, value=_SOURCES[0], label="Whom to forget", elem_id="forget-source"
                )
                with gradio.Column(visible=True) as bank:
                    self.wall = Wall(studio, "forget")
                with gradio.Column(visible=False) as photographs:
                    gradio.HTML(render("drop", largest=LARGEST, most=MOST), apply_default_css=False)
                    self.dropped = gradio.HTML("", apply_default_css=False, elem_id="forget-dropped")
                with gradio.Row():
                    self.person = gradio.Textbox(
                        label="Person",
                        placeholder="click a face, or write an id",
                        max_lines=1,
                        elem_id="forget-person",
                        scale=2,
                        min_width=200,
                    )
                    self.method = gradio.Dropdown(
                        [FIRST_METHOD],
                        value=FIRST_METHOD,
                        label="Method",
                        elem_id="forget-method",
                        scale=3,
                        min_width=220,
                    )
                self.about = gradio.HTML("", apply_default_css=False, elem_id="forget-about")
                with gradio.Accordion("More settings", open=False):
                    self.seed = gradio.Number(value=42, precision=0, minimum=0, label="Seed of every draw")
                    self.evaluate = gradio.Checkbox(
                        value=True, label="Measure it afterwards, for the verdict and the figures"
                    )
                    self.settings = gradio.Textbox(
                        label="Other settings",
                        placeholder="anchor.rule=nearest train.steps=200",
                        max_lines=1,
                        visible=studio.files,  # some name files
                    )
                go = gradio.Button("Forget", variant="primary", elem_id="forget-go")
            with gradio.Column(scale=6, min_width=300, elem_classes="area"):
                self.area = Area(
                    studio, "forget", self._shown, coming="The first before and after comes here."
                )
        self.source.change(
            lambda source: [gradio.update(visible=source == _SOURCES[place]) for place in (0, 1, 0)],
            self.source,
            [bank, photographs, self.person],
            **quiet_event(),
        )
        self.method.change(self._label, self.method, self.about, **quiet_event())
        self.wall.component.click(_picked, outputs=self.person, **quiet_event())
        inputs = [self.source, self.person, self.method, self.seed, self.evaluate, self.settings]
        go.click(self.area.started(self._begin), inputs, self.area.outputs, **quiet_event())

    @property
    def outputs(self) -> list[Any]:
        """What ``update`` brings up to date."""
        return [self.wall.component, self.method, self.about, self.dropped, *self.area.outputs]

    def update(self, visitor: Visitor, seen: dict[str, Any]) -> list[Any]:
        """What has changed since it was last seen."""
        return [
            *self.wall.update(seen),
            *self._methods(seen),
            self._photographs(visitor, seen),
            *self.area.update(visitor, seen),
        ]

    def _methods(self, seen: dict[str, Any]) -> list[Any]:
        """The methods with what they take, and at first what the first of them is."""
        bench = self._studio.bench
        if not bench.ready.is_set():
            return [gradio.skip(), gradio.skip()]
        words = {name: bench.times.words(name) for name in bench.methods}
        choices = [(f"{name} ({seconds})" if seconds else name, name) for name, seconds in words.items()]
        if seen.get("methods") == choices:
            return [gradio.skip(), gradio.skip()]
        first = "methods" not in seen
        seen["methods"] = choices
        return [gradio.update(choices=choices), self._label(FIRST_METHOD) if first else gradio.skip()]

    def _photographs(self, visitor: Visitor, seen: dict[str, Any]) -> Any:
        """Those at hand, where they are others than were seen."""
        paths = tuple(visitor.photographs)
        if seen.get("forget.photographs", ()) == paths:
            return gradio.skip()
        seen["forget.photographs"] = paths
        return render("dropped", photographs=[thumbnail(path) for path in paths])

    def _label(self, name: str) -> str:
        """What a method is, in the registry's words."""
        method = self._studio.bench.methods.get(name)
        return "" if method is None else render("about", label=method.label, paper=method.paper)

    def _begin(
        self,
        visitor: Visitor,
        source: str,
        person: str,
        method: str,
        seed: float | None,
        evaluate: bool,
        settings: str,
    ) -> tuple[str, Work]:
        bench = self._studio.bench
        photographs = tuple(visitor.photographs) if source == _SOURCES[1] else ()
        name = "" if source == _SOURCES[1] else (person or "").strip()
        if source == _SOURCES[1] and not photographs:
            raise BadInput("there is no photograph yet; drop at least one, or pick somebody of the bank")
        if source == _SOURCES[0]:
            if not name:
                raise BadInput("nobody is chosen yet; pick somebody from the wall")
            bench.bank.index(name)  # refuses whatever is no id of the bank
        pairs = tuple((settings or "").split()) if self._studio.files else ()
        wish = Wish(name, photographs, method, int(seed or 0), bool(evaluate), pairs)
        who = name or FROM_PHOTOGRAPHS
        return f"forget {who} with {method}", forget_work(bench, visitor, wish)

    def _shown(self, job: Job | None) -> str:
        one = job.result if job else None
        if not isinstance(one, Forgotten) or job is None:
            return render("forget", one=None)
        likeness = verification = None
        if one.report is not None and one.report.evaluation is not None:
            from piu_lora.evidence.report import tables

            recognizers = one.report.evaluation.recognizers
            likeness = tables.likeness_table(recognizers)
            verification = tables.verification_table(recognizers)
        return render("forget", one=one, key=job.key, likeness=likeness, verification=verification)


def _picked(event: gradio.EventData) -> Any:
    return event._data.get("person", gradio.skip())
