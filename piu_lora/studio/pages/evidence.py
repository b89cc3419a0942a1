"""Evidence: evaluate and audit an adapter, read the report in place, two reports side by side."""

from typing import Any, Literal

import gradio

from piu_lora.errors import BadInput
from piu_lora.studio.elements import render
from piu_lora.studio.pages.adapters import AdapterChoice, chosen
from piu_lora.studio.pages.arena import ArenaPart
from piu_lora.studio.pages.base import Area, Studio, Work, person_box, quiet_event
from piu_lora.studio.queue import Job
from piu_lora.studio.visitors import Visitor
from piu_lora.studio.work.evidence import Examined, evidence_work

__all__ = ["DEPTHS", "EvidencePage"]

DEPTHS = [("Quick: a first answer", "quick"), ("Full: evidence for a release", "full")]


class EvidencePage:
    """The fourth tab."""

    def __init__(self, studio: Studio) -> None:
        self._studio = studio
        with gradio.Row():
            with gradio.Column(scale=1, min_width=300):
                self.adapter = AdapterChoice(studio, "evidence", several=False)
                self.person = person_box("Whom it forgets", info="Empty: as it was made here.")
            with gradio.Column(scale=1, min_width=300):
                self.depth = gradio.Radio(DEPTHS, value="quick", label="How thorough")
                with gradio.Row():
                    check = gradio.Button("Evaluate", variant="primary", elem_id="evidence-go", min_width=110)
                    attack = gradio.Button("Audit", elem_id="evidence-audit", min_width=110)
                self.beside = gradio.Radio([], label="Beside it", visible=False, elem_id="evidence-beside")
        with gradio.Row():
            with gradio.Column(scale=1, min_width=320):
                self.area = Area(studio, "evidence", self._shown)
            with gradio.Column(scale=1, min_width=320, visible=False) as self.side:
                self.second = gradio.HTML("", apply_default_css=False, elem_id="evidence-second")
        self.arena = ArenaPart(studio) if studio.files else None
        inputs = [self.adapter.component, self.person, self.depth]
        check.click(self.area.started(self._evaluate), inputs, self.area.outputs, **quiet_event())
        attack.click(self.area.started(self._audit), inputs, self.area.outputs, **quiet_event())
        self.beside.change(self._compare, self.beside, [self.second, self.side], **quiet_event())

    @property
    def outputs(self) -> list[Any]:
        """What ``update`` brings up to date."""
        arena = self.arena.area.outputs if self.arena else []
        return [self.adapter.component, self.beside, *self.area.outputs, *arena]

    def update(self, visitor: Visitor, seen: dict[str, Any]) -> list[Any]:
        """What has changed since it was last seen."""
        return [
            self.adapter.update(visitor, seen),
            self._others(visitor, seen),
            *self.area.update(visitor, seen),
            *(self.arena.area.update(visitor, seen) if self.arena else []),
        ]

    def _others(self, visitor: Visitor, seen: dict[str, Any]) -> Any:
        keys = tuple(visitor.reports)
        if seen.get("evidence.reports") == keys:
            return gradio.skip()
        seen["evidence.reports"] = keys
        choices = [("nothing", ""), *((name, key) for key, (name, _) in visitor.reports.items())]
        return gradio.update(choices=choices, value="", visible=len(keys) > 1)

    def _evaluate(self, visitor: Visitor, *values: str) -> tuple[str, Work]:
        return self._begin(visitor, "evaluate", *values)

    def _audit(self, visitor: Visitor, *values: str) -> tuple[str, Work]:
        return self._begin(visitor, "audit", *values)

    def _begin(
        self, visitor: Visitor, kind: Literal["evaluate", "audit"], key: str, person: str, depth: str
    ) -> tuple[str, Work]:
        adapter, who, bench = chosen(key)[0], (person or "").strip(), self._studio.bench
        if who:
            bench.bank.index(who)  # refuses whatever is no id of the bank
        work = evidence_work(bench, visitor, adapter, who, kind, quick=depth == "quick")
        return f"{kind} {visitor.adapter(adapter).name}", work

    def _compare(self, request: gradio.Request, key: str) -> list[Any]:
        if not key:
            return ["", gradio.update(visible=False)]
        visitor = self._studio.visitor(request)
        if key not in visitor.reports:
            raise BadInput("that report is not at hand any more")
        page = render("report", name=visitor.reports[key][0], report=key, again=0)
        return [page, gradio.update(visible=True)]

    def _shown(self, job: Job | None) -> str:
        result = job.result if job else None
        if not isinstance(result, Examined) or job is None:
            return render("report", name="", report="", again=0)
        return render("report", name=result.name, report=result.report, again=job.key)
