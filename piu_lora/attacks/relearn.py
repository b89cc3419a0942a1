"""Relearning: how many steps of an ordinary LoRA on photographs of the person undo the forgetting?"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from diffusers import StableDiffusionPipeline
from pydantic import Field

from piu_lora.attacks.config import Ascending, AttackSettings, AuditConfig
from piu_lora.attacks.context import AttackContext, ProbedIdentity, drawn
from piu_lora.attacks.control import made_up_identity
from piu_lora.attacks.copies import attention_blocks, fused_copy
from piu_lora.attacks.denoise import denoising_loss, draw_noisy
from piu_lora.attacks.judge import COLUMNS, AttackTable, Judgement, criterion, curve, judge_images, series
from piu_lora.attacks.registry import Outcome, attack
from piu_lora.config import LoraConfig
from piu_lora.model import attach, encode_embeddings, trainable, training_attention
from piu_lora.settings import Count, Positive
from piu_lora.unlearn.baselines.pictures import latents_of

__all__ = ["FineTuning", "RelearnSettings", "finetuned", "relearn"]


class RelearnSettings(AttackSettings, section="audit.relearn"):
    """The fine-tuning on photographs."""

    photos: Ascending = Field((1, 5, 10), min_length=1, description="numbers of photographs that are tried")
    steps: Ascending = Field(
        (5, 10, 20, 30, 40, 60, 80), min_length=1, description="after which images are judged"
    )
    rank: Count = Field(8, description="of the LoRA")
    lr: Positive = Field(1e-3, description="learning rate")
    batch: Count = Field(8, description="noised photographs in a step")

    @property
    def photographs(self) -> int:
        """The largest of the numbers that are tried."""
        return self.photos[-1]


@dataclass(frozen=True)
class FineTuning:
    """How a fine-tuning went: the steps after which images were judged, and what was seen."""

    steps: tuple[int, ...]
    judgements: tuple[Judgement, ...]
    share: float

    @property
    def returned(self) -> int | None:
        """The first of the steps at which the person is back; None where they stay away."""
        return next(
            (
                step
                for step, judgement in zip(self.steps, self.judgements, strict=True)
                if judgement.share >= self.share
            ),
            None,
        )

    @property
    def withstood(self) -> int:
        """The last step that was judged before the person came back; -1 where they never were away."""
        return max((step for step in self.steps if self.returned is None or step < self.returned), default=-1)


@attack(
    "relearn",
    "Relearning",
    "How many steps of an ordinary LoRA on photographs of the person bring them back?",
    settings=RelearnSettings,
    quick={"photos": (1, 2), "steps": (1, 2), "rank": 2, "batch": 2},
    long=True,
)
def relearn(context: AttackContext, config: AuditConfig) -> Outcome:
    """An ordinary LoRA on 1, 5, 10 photographs of the person, on top of the adapter; benign fine-tuning on
    others; the controls.

    The measure is the same attack on the untouched base for a made-up identity: after how many steps does the
    condition of somebody whom the base never saw draw the person of the photographs?
    """
    settings = config.section_of(RelearnSettings)
    table, curves = AttackTable(), []
    figures: dict[str, float | int | None] = {}
    back: dict[str, list[int | None]] = {}
    held_out: dict[str, list[int]] = {}
    for person in context.people[: config.people]:
        runs = _fine_tunings(context, config, person, table)
        for name, run in runs.items():
            back.setdefault(name, []).append(run.returned)
            held_out.setdefault(name, []).append(run.withstood)
        lines = [
            series(name.replace("_", " "), run.steps, [judgement.ism for judgement in run.judgements])
            for name, run in runs.items()
        ]
        curves.append(
            curve(
                f"Fine-tuning: {person.label}",
                "steps",
                "ISM",
                lines,
                context.galleries[-1].threshold(config.far),
            )
        )
    control = judge_images(
        context.galleries,
        context.draw(_judged(context.control, config), config, context.change),
        context.control.row,
        config.far,
    )
    table.add("step 0", context.control.label, "adapter on", control)
    for name, steps in back.items():
        # Of several people, the one who is back first.
        figures[f"steps_{name}"] = min((step for step in steps if step is not None), default=None)
        figures[f"withstood_{name}"] = min(held_out[name])
    figures["control_step_0"] = control.share
    # With fewer photographs at hand, the larger lessons cannot be given.
    for count in settings.photos:
        figures.setdefault(f"steps_photos_{count}")
        figures.setdefault(f"withstood_photos_{count}")
    taught = [figures[f"steps_photos_{count}"] for count in settings.photos]
    return Outcome(
        any(step is not None for step in taught),
        f"{criterion(config)}, within {settings.steps[-1]} steps; steps_* is null where the person stays "
        "away, withstood_* is the "
        "last step judged before they are back (-1: they never were away)",
        _finding(config, figures),
        f"rank {settings.rank}, up to {settings.steps[-1]} steps x {settings.batch}, {config.images} "
        "images a judgement",
        figures,
        COLUMNS,
        table.rows,
        curves,
    )


def _finding(config: AuditConfig, figures: dict[str, float | int | None]) -> str:
    settings = config.section_of(RelearnSettings)

    def steps_in_words(name: str) -> str:
        step = figures.get(f"steps_{name}")
        return f"not within {settings.steps[-1]} steps" if step is None else f"after {step} steps"

    counts = [count for count in settings.photos if figures[f"withstood_photos_{count}"] is not None]
    steps = ", ".join(
        f"{steps_in_words(f'photos_{count}')} on {count} photograph{'s' * (count > 1)}" for count in counts
    )
    if len(counts) < len(settings.photos):
        steps = f"{steps or 'never tried'} (no more photographs are at hand)"
    return (
        f"the person is back {steps}; the untouched base learns them for a made-up identity "
        f"{steps_in_words('made_up')}; benign fine-tuning on others "
        f"brings them back {steps_in_words('benign')}; with random weights of equal norm they are there "
        f"{steps_in_words('random')}"
    )


@dataclass(frozen=True)
class _Lesson:
    """What a model is fine-tuned on: photographs (m, 3, h, w) with their embeddings (m, d), and embeddings
    (n, d) whose images are judged.
    """

    name: str
    photos: torch.Tensor
    embeddings: torch.Tensor
    judged: torch.Tensor
    adapter: bool = True  # whether the model carries the adapter


def _fine_tunings(
    context: AttackContext, config: AuditConfig, person: ProbedIdentity, table: AttackTable
) -> dict[str, FineTuning]:
    settings = config.section_of(RelearnSettings)
    most = settings.photos[-1]
    photos, conditions = person.photos[:most], person.conditions(most)[: len(person.photos)]
    away = torch.stack([person.centre, *([] if person.anchor is None else [person.anchor])])
    nobody = made_up_identity(context.bank, away, context.generator(f"made up for {person.label}"))
    judged = _judged(person, config)
    runs = {}
    for count in (number for number in settings.photos if number <= len(photos)):
        runs[f"photos_{count}"] = _fine_tuning(
            context,
            config,
            person,
            _Lesson(f"{count} photograph{'s' * (count > 1)}", photos[:count], conditions[:count], judged),
            table,
        )
    strangers = nobody.expand(len(photos), -1)
    runs["made_up"] = _fine_tuning(
        context,
        config,
        replace(person, label=f"made up, photographs of {person.label}"),
        _Lesson(f"{len(photos)} photographs", photos, strangers, nobody.expand(config.images, -1), False),
        table,
    )
    others = _Lesson("photographs of others", context.others.photos, context.others.embeddings, judged)
    runs["benign"] = _fine_tuning(context, config, person, others, table)
    random = judge_images(
        context.galleries, context.draw(judged, config, context.random), person.row, config.far
    )
    table.add("step 0", person.label, "random weights", random)
    runs["random"] = FineTuning((0,), (random,), config.share)
    return runs


def _judged(person: ProbedIdentity, config: AuditConfig) -> torch.Tensor:
    return person.conditions(config.images)


def _fine_tuning(
    context: AttackContext, config: AuditConfig, person: ProbedIdentity, lesson: _Lesson, table: AttackTable
) -> FineTuning:
    """Fine-tune a copy on a lesson, and judge its images until the person is back."""
    twin = fused_copy(context.pipe, context.change if lesson.adapter else {})
    model = "adapter on" if lesson.adapter else "untouched base"
    steps, judgements = [], []
    generator = context.generator(f"fine-tuning for {person.label}: {lesson.name}")
    for step in finetuned(twin, lesson.photos, lesson.embeddings, config, generator):
        images = drawn(twin, lesson.judged, config, context.seeds(len(lesson.judged)))
        judgement = judge_images(context.galleries, images, person.row, config.far)
        steps.append(step)
        judgements.append(table.add(f"{lesson.name}, step {step}", person.label, model, judgement))
        if judgement.back(config):
            break
    return FineTuning(tuple(steps), tuple(judgements), config.share)


def finetuned(
    pipe: StableDiffusionPipeline,
    photos: torch.Tensor,
    embeddings: torch.Tensor,
    config: AuditConfig,
    generator: torch.Generator,
) -> Iterator[int]:
    """Train an ordinary LoRA in all of the cross-attention, and stop for a look at step 0 and after each of
    ``audit.relearn.steps``.

    The pipeline is changed: pass a copy.

    Args:
        photos: (m, 3, h, w) RGB in [0, 1].
        embeddings: (m, d), the condition that goes with each, by the pipeline's own encoder.

    Yields:
        The number of steps made.
    """
    settings = config.section_of(RelearnSettings)
    yield 0
    latents = latents_of(pipe, photos, config.batch)
    with torch.no_grad():
        conditions = encode_embeddings(pipe.text_encoder, pipe.tokenizer, embeddings.to(pipe.device))
    shape = LoraConfig(rank=settings.rank, blocks=attention_blocks(pipe.unet))
    attach(pipe.unet, shape, "relearned", seed=int(torch.randint(2**31 - 1, (1,), generator=generator)))
    parameters = trainable(pipe.unet)
    optimizer = torch.optim.AdamW(parameters, lr=settings.lr)
    for step in range(1, settings.steps[-1] + 1):
        batch = draw_noisy(pipe, latents, settings.batch, generator)
        optimizer.zero_grad(set_to_none=True)
        with training_attention(pipe.unet):
            loss, _ = denoising_loss(pipe, batch, conditions[batch.chosen.to(conditions.device)])
            loss.backward(inputs=parameters)
        optimizer.step()
        if step in settings.steps:
            yield step
