"""Stack: several adapters together, and who is hurt by whom."""

from typing import Any

import gradio

from piu_lora.errors import BadInput
from piu_lora.studio.elements import render
from piu_lora.studio.pages.adapters import AdapterChoice, chosen
from piu_lora.studio.pages.base import Area, Studio, Work, quiet_event
from piu_lora.studio.queue import Job
from piu_lora.studio.visitors import Visitor
from piu_lora.studio.work.stack import Checked, Written, check_work, fuse_work, merge_work

__all__ = ["StackPage"]

_METHODS = [
    ("refit: measured on the base, forgets everybody as well", "refit"),
    ("sum: exact, but forgets less", "sum"),
]


class StackPage:
    """The third tab."""

    def __init__(self, studio: Studio) -> None:
        self._studio = studio
        with gradio.Row():
            with gradio.Column(scale=4, min_width=300):
                self.adapters = AdapterChoice(studio, "stack")
                check = gradio.Button("Check", variant="primary", elem_id="stack-check")
                self.method = gradio.Radio(_METHODS, value="refit", label="How to merge")
                with gradio.Row():
                    merge = gradio.Button("Merge", elem_id="stack-merge", min_width=110)
                    fuse = gradio.Button("Fuse", elem_id="stack-fuse", min_width=110)
            with gradio.Column(scale=7, min_width=300, elem_classes="area"):
                self.area = Area(studio, "stack", self._shown)
        check.click(
            self.area.started(self._check), self.adapters.component, self.area.outputs, **quiet_event()
        )
        fuse.click(self.area.started(self._fuse), self.adapters.component, self.area.outputs, **quiet_event())
        merge.click(
            self.area.started(self._merge),
            [self.adapters.component, self.method],
            self.area.outputs,
            **quiet_event(),
        )

    @property
    def outputs(self) -> list[Any]:
        """What ``update`` brings up to date."""
        return [self.adapters.component, *self.area.outputs]

    def update(self, visitor: Visitor, seen: dict[str, Any]) -> list[Any]:
        """What has changed since it was last seen."""
        return [self.adapters.update(visitor, seen), *self.area.update(visitor, seen)]

    def _check(self, visitor: Visitor, keys: list[str]) -> tuple[str, Work]:
        several = chosen(keys)
        return f"check {_count(several)}", check_work(self._studio.bench, visitor, several)

    def _merge(self, visitor: Visitor, keys: list[str], method: str) -> tuple[str, Work]:
        several = chosen(keys)
        if len(several) < 2:
            raise BadInput("one adapter alone is merged already; choose two or more")
        return f"merge {_count(several)}", merge_work(self._studio.bench, visitor, several, method)

    def _fuse(self, visitor: Visitor, keys: list[str]) -> tuple[str, Work]:
        several = chosen(keys)
        return f"fuse {_count(several)}", fuse_work(self._studio.bench, visitor, several)

    def _shown(self, job: Job | None) -> str:
        result = job.result if job else None
        kinds = {Checked: "checked", Written: "written"}
        return render("stack", kind=kinds.get(type(result), ""), one=result, key=job.key if job else "")


def _count(keys: tuple[str, ...]) -> str:
    return "1 adapter" if len(keys) == 1 else f"{len(keys)} adapters"
