"""The baseline methods: each edits a pipeline in place and is found by name."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeVar, Unpack

import torch
from diffusers import StableDiffusionPipeline

from piu_lora.errors import BadInput
from piu_lora.model import BaseFamily, training_attention
from piu_lora.plugins import registered_as
from piu_lora.settings import Settings
from piu_lora.unlearn.dial import Dial, Range, Tuning

__all__ = ["BASELINES", "Baseline", "BaselineProblem", "Form", "Snapshots", "baseline", "find_baseline"]

Component = Literal["unet", "text_encoder"]


@dataclass(frozen=True)
class Snapshots:
    """Of a training whose rate is constant: ``take`` is told when one of ``steps`` is done, while the model
    is what a run of that length would leave.
    """

    steps: frozenset[int]
    take: Callable[[int], None]


@dataclass(frozen=True)
class BaselineProblem:
    """Who is forgotten, who replaces them, who stays: float32 unit embeddings, on the CPU."""

    forget: torch.Tensor  # (n, d) training embeddings of the forgotten person
    anchor: torch.Tensor  # (d,)
    retain: torch.Tensor  # (m, d) training embeddings of everybody else
    centroids: torch.Tensor  # (k, d) of the retained identities trained on
    # (b, 3, h, w) RGB in [0, 1] on the pipeline's device -> (b, d) unit rows, differentiable; only WID asks
    # for it
    recognise: Callable[[torch.Tensor], torch.Tensor] | None = None
    # (m, 3, h, w) RGB in [0, 1] in the base's size, of the first m training embeddings, m at most n; None
    # where there are none
    photographs: torch.Tensor | None = None
    snapshots: Snapshots | None = None

    def is_watched(self, done: int) -> bool:
        """Whether somebody wants the model after so many steps."""
        return self.snapshots is not None and done in self.snapshots.steps

    def after(self, done: int) -> None:
        """Say that so many steps are done."""
        if self.snapshots is not None and self.is_watched(done):
            self.snapshots.take(done)


S = TypeVar("S", bound=Settings)
Edit = Callable[[StableDiffusionPipeline, BaselineProblem, S, int], None]


@dataclass(frozen=True)
class Form:
    """A baseline as somebody else runs it: entered under the baseline's name and this one's.

    Attributes:
        suffix: ``uce`` and ``all`` make ``uce-all``.
        about: who runs it like this, in one sentence.
        settings: what is set otherwise than in the baseline's own defaults.
    """

    suffix: str
    about: str
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class Baseline:
    """A registered baseline, or a form of one.

    Attributes:
        component: what it changes.
        needs_recognizer: a differentiable one, as ``BaselineProblem.recognise``.
        dial: what makes it forget more or less; None where nothing is declared.
        search: its decisive settings, for ``tune``.
        about: where it stands among the published comparisons, in one sentence.
        form_of: the baseline that this is a form of; empty for a baseline itself.
        preset: what the form sets otherwise.
    """

    name: str
    label: str
    paper: str
    settings: type[Settings]
    edit: Edit[Any]
    needs_recognizer: bool = False
    component: Component = "unet"
    about: str = ""
    form_of: str = ""
    preset: Mapping[str, Any] = field(default_factory=dict)
    dial: Dial | None = None
    search: tuple[Range, ...] = ()

    def settings_for(self, family: BaseFamily) -> Settings:
        """The settings on a family of bases: the baseline's defaults, over them the family's own for it, and
        over these what the form sets.
        """
        own = family.baselines.get(self.form_of or self.name, {})
        return self.settings().updated(own).updated(self.preset)

    def run(self, pipe: StableDiffusionPipeline, problem: BaselineProblem, settings: Any, seed: int) -> None:
        """Edit ``component`` in place, on the pipeline's own device; the UNet ends frozen and in eval mode.

        Every baseline trains with the attention kernel that suits the device, which changes seconds and no
        formula.

        Args:
            pipe: a base in float32 without adapters; only ``component`` changes.
            settings: an instance of ``self.settings``.
            seed: of every random draw.

        Raises:
            BadInput: settings of another baseline, weights that are not float32, or no recognizer where one
                is needed.
        """
        if not isinstance(settings, self.settings):
            raise BadInput(f"{self.name} takes {self.settings.__name__}, not {type(settings).__name__}")
        if pipe.unet.dtype != torch.float32:
            raise BadInput(
                f"{self.name} edits float32 weights, and this UNet holds {pipe.unet.dtype}; load the base "
                "with precision fp32"
            )
        pipe.unet.eval()
        try:
            with training_attention(pipe.unet):
                self.edit(pipe, problem, settings, seed)
        finally:
            pipe.unet.requires_grad_(False)


BASELINES: dict[str, Baseline] = {}


class BaselineTuning(Tuning, total=False):
    """The same of a baseline, what it says of itself, and the forms that others run it in."""

    about: str
    forms: Sequence[Form]


def baseline(
    name: str,
    label: str,
    paper: str,
    settings: type[S],
    *,
    needs_recognizer: bool = False,
    component: Component = "unet",
    **more: Unpack[BaselineTuning],
) -> Callable[[Edit[S]], Edit[S]]:
    """Add a baseline to the registry, and its forms.

    Args:
        settings: a class whose defaults the baseline runs with.
        needs_recognizer, component: as in ``Baseline``.
        more: ``about``, ``dial`` and ``search``, as in ``Baseline``, and its ``forms``.
    """

    def decorate(edit: Edit[S]) -> Edit[S]:
        plain = Baseline(
            name,
            label,
            paper,
            settings,
            edit,
            needs_recognizer,
            component,
            more.get("about", ""),
            dial=more.get("dial"),
            search=tuple(more.get("search", ())),
        )
        BASELINES[name] = plain
        for form in more.get("forms", ()):
            entry = f"{name}-{form.suffix}"
            BASELINES[entry] = replace(
                plain,
                name=entry,
                label=f"{label} ({form.suffix})",
                about=form.about,
                form_of=name,
                preset=form.settings,
            )
        return edit

    return decorate


def find_baseline(name: str) -> Baseline:
    """The baseline of that name, or ``BadInput`` with the known ones."""
    return registered_as(name, BASELINES, "baseline")
