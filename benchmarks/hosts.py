"""Hosts: who comes out when a forgotten person is drawn the way demos, nodes and services draw.

    python -m benchmarks.hosts --out benchmarks/results/hosts.json

For every method and person: the embedded base as each host sets it up, with a pinned adapter unless the row
says otherwise. Images are verified by the recognizer that the base never met, against the centroid in
the evaluating bank, at a false-accept rate of 1e-3. Beside the forgotten people stands a control. The second
LoRA is small and random: it stands for one that changes the style.
"""

import copy
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from diffusers import DDIMScheduler, EulerDiscreteScheduler, LCMScheduler, StableDiffusionImg2ImgPipeline
from diffusers import StableDiffusionPipeline as Pipe

from benchmarks.output import parser as new_parser
from benchmarks.output import publish
from piu_lora import ForgetConfig, forget, fuse_adapters, load_adapter, load_base, open_members, read_adapter
from piu_lora.adapter import Factors, save_diffusers, unload
from piu_lora.identity import centroid, normalize
from piu_lora.identity.verification import far_threshold
from piu_lora.model import encode_embeddings, family_of, generate, mini
from piu_lora.model.family import Prompt
from piu_lora.model.mini.export import fresh_portraits

METHODS = ("closed-kv", "closed-encoder", "closed-both", "gate-encoder")
PEOPLE, CONTROL = (7, 501), 800  # rows of the bank that no default was tuned on
FAR = 1e-3
Draw = Callable[[Pipe, torch.Tensor, list[int]], torch.Tensor]


def plain(pipe: Pipe, embeddings: torch.Tensor, seeds: list[int], **options: Any) -> torch.Tensor:
    """As the base is meant to be used."""
    return generate(pipe, embeddings, seeds, **{"steps": 10, **options})


def by_template(text: str) -> Draw:
    """Another prompt around the embedding."""
    return lambda pipe, who, seeds: plain(pipe, who, seeds, prompt=Prompt(text, "id"))


def with_scheduler(kind: Any, **options: Any) -> Draw:
    """Another sampler than DPM-Solver++."""

    def draw(pipe: Pipe, who: torch.Tensor, seeds: list[int]) -> torch.Tensor:
        own = pipe.scheduler
        pipe.scheduler = kind.from_config(own.config)
        try:
            return plain(pipe, who, seeds, **options)
        finally:
            pipe.scheduler = own

    return draw


def pooled(pipe: Pipe, who: torch.Tensor, seeds: list[int]) -> torch.Tensor:
    """One embedding of all photographs."""
    return plain(pipe, centroid(who)[None].expand(len(seeds), -1), seeds)


def morphed(pipe: Pipe, who: torch.Tensor, seeds: list[int]) -> torch.Tensor:
    """Three quarters of the person's condition and one of somebody else's."""
    other = normalize(mini.conditioning_bank().of("mini-0900"))[torch.arange(len(who)) % 9]
    conditions = 0.75 * encode_embeddings(pipe.text_encoder, pipe.tokenizer, who)
    conditions = conditions + 0.25 * encode_embeddings(pipe.text_encoder, pipe.tokenizer, other)
    return _sampled(pipe, conditions, seeds)


def negative(pipe: Pipe, who: torch.Tensor, seeds: list[int]) -> torch.Tensor:
    """A negative prompt with text."""
    conditions = encode_embeddings(pipe.text_encoder, pipe.tokenizer, who)
    return _sampled(pipe, conditions, seeds, negative="photo of person")


def from_an_image(pipe: Pipe, who: torch.Tensor, seeds: list[int]) -> torch.Tensor:
    """img2img on somebody else's photograph."""
    other = StableDiffusionImg2ImgPipeline(**pipe.components, requires_safety_checker=False)
    other.set_progress_bar_config(disable=True)
    image = fresh_portraits(900, 1).float() / 127.5 - 1
    conditions = encode_embeddings(pipe.text_encoder, pipe.tokenizer, who)
    images = image.expand(len(who), -1, -1, -1)
    return _sampled(other, conditions, seeds, image=images, strength=0.8)


def _sampled(
    pipe: Any, conditions: torch.Tensor, seeds: list[int], negative: str = "", **options: Any
) -> torch.Tensor:
    result = pipe(
        prompt_embeds=conditions,
        negative_prompt=[negative] * len(seeds),
        generator=[torch.Generator().manual_seed(seed) for seed in seeds],
        num_inference_steps=10,
        guidance_scale=3.0,
        output_type="pt",
        **options,
    )
    images: torch.Tensor = result.images.float()
    return images


DRAWS: dict[str, Draw] = {
    "bare": plain,
    "DDIM": with_scheduler(DDIMScheduler),
    "Euler": with_scheduler(EulerDiscreteScheduler),
    "LCM, 4 steps, guidance 1": with_scheduler(LCMScheduler, steps=4, guidance=1.0),
    "several photographs in one": pooled,
    "morph, 75 %": morphed,
    "negative prompt": negative,
    "img2img, strength 0.8": from_an_image,
    'template "id"': by_template("id"),
    'template "id person"': by_template("id person"),
}
CALLS: dict[str, Callable[[Pipe, Path], object]] = {
    "second LoRA": lambda pipe, lora: pipe.load_lora_weights(str(lora)),
    "second LoRA, disable_lora": lambda pipe, lora: (pipe.load_lora_weights(str(lora)), pipe.disable_lora()),
    "second LoRA, unload": lambda pipe, lora: (pipe.load_lora_weights(str(lora)), pipe.unload_lora_weights()),
}


@contextmanager
def hosted(
    pipe: Pipe, adapter: Path, lora: Path, call: Callable[[Pipe, Path], object], *, pinned: bool
) -> Iterator[Pipe]:
    """A copy with the adapter, after what a host calls."""
    host = copy.copy(pipe)
    host.unet, host.text_encoder = copy.deepcopy(pipe.unet), copy.deepcopy(pipe.text_encoder)
    load_adapter(host, adapter, pinned=pinned)
    call(host, lora)
    yield host


def second_lora(pipe: Pipe, path: Path) -> None:
    """Random, on the self-attention."""
    generator = torch.Generator().manual_seed(0)
    change = {
        f"unet.{name}": Factors(
            torch.randn(4, layer.in_features, generator=generator),
            0.002 * torch.randn(layer.out_features, 4, generator=generator),
        )
        for name, layer in pipe.unet.named_modules()
        if isinstance(layer, torch.nn.Linear) and ".attn1." in name
    }
    save_diffusers(change, path)


class Judge:
    """The share of images that the second recognizer takes for the person of a row."""

    def __init__(self, images: int) -> None:
        self.images, self.bank = images, mini.evaluating_bank()
        self.recognizer = mini.evaluating_recognizer()
        self.threshold = far_threshold(self.bank, FAR).value

    def __call__(self, pipe: Pipe, row: int, draw: Draw) -> float:
        who = normalize(mini.conditioning_bank().of(f"mini-{row:04d}"))
        who = who[torch.arange(self.images) % len(who)]
        images = draw(pipe, who, list(range(1000, 1000 + self.images)))
        cosines = self.recognizer.embed(images) @ self.bank.centroid(row)
        return float((cosines >= self.threshold).float().mean())


def measure(methods: list[str], images: int, people: Sequence[int], out: Path | None) -> dict[str, Any]:
    """Fill the cells, writing each as it comes; cells of a run before are kept."""
    pipe, judge = load_base("mini"), Judge(images)
    result: dict[str, Any] = {"images": images, "people": len(people), "cells": {}}
    if out and out.exists():
        result = json.loads(out.read_text())
    cells = result["cells"]

    def keep(model: str, host: str, shares: list[float]) -> None:
        cells.setdefault(model, {})[host] = shares
        if out:
            out.write_text(json.dumps(result, indent=2) + "\n")

    for host, draw in DRAWS.items():
        if host not in cells.get("untouched", {}):
            keep("untouched", host, [judge(pipe, row, draw) for row in (*people, CONTROL)])
    with TemporaryDirectory() as scratch:
        second_lora(pipe, lora := Path(scratch) / "second.safetensors")
        for method in (method for method in methods if method not in cells):
            config = ForgetConfig.preset(family_of("mini")).updated_from_pairs((f"method={method}",))
            shares: dict[str, list[list[float]]] = {}
            for row in people:
                adapter = Path(scratch) / f"{method}-{row}"
                forget(f"mini-{row:04d}", pipe, adapter, config=config, evaluate=False)
                for host, pair in _hosts(pipe, adapter, lora, judge, row):
                    shares.setdefault(host, []).append(pair)
            for host, pairs in shares.items():
                keep(method, host, [*(person for person, _ in pairs), sum(c for _, c in pairs) / len(pairs)])
    return result


def _hosts(
    pipe: Pipe, adapter: Path, lora: Path, judge: Judge, row: int
) -> Iterator[tuple[str, list[float]]]:
    def both(host: Pipe, draw: Draw) -> list[float]:
        return [judge(host, who, draw) for who in (row, CONTROL)]

    name = load_adapter(pipe, adapter)
    for host, draw in DRAWS.items():
        yield host, both(pipe, draw)
    unload(pipe, [name])
    for call_name, call in CALLS.items():
        for pinned in (True, False):
            with hosted(pipe, adapter, lora, call, pinned=pinned) as host_pipe:
                yield call_name + ("" if pinned else ", not pinned"), both(host_pipe, plain)
    with TemporaryDirectory() as folder:
        fused = Path(folder) / "fused"
        fuse_adapters(open_members([read_adapter(adapter)]), "mini", fused)
        host_pipe = load_base(fused)
        for call_name, call in CALLS.items():
            call(host_pipe, lora)
            yield f"fused; {call_name}", both(host_pipe, plain)
            host_pipe.unload_lora_weights()


def table(result: dict[str, Any]) -> str:
    """Hosts down, methods across."""
    cells = result["cells"]
    models, hosts = list(cells), list(dict.fromkeys(host for column in cells.values() for host in column))
    lines = ["| host | " + " | ".join(models) + " |", "|---|" + "--:|" * len(models)]
    for host in hosts:
        row = [_cell(cells[model].get(host)) for model in models]
        lines.append(f"| {host} | " + " | ".join(row) + " |")
    note = "Share verified: of the forgotten people / of the control person."
    return "\n".join([*lines, "", note])


def _cell(shares: list[float] | None) -> str:
    if shares is None:
        return "-"
    *people, control = shares
    return f"{sum(people) / len(people):.2f} / {control:.2f}"


def main() -> None:
    """Measure and print."""
    parser = new_parser(__doc__)
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--people", type=int, default=len(PEOPLE))
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    methods, people = arguments.methods.split(","), PEOPLE[: arguments.people]
    result = measure(methods, arguments.images, people, arguments.out)
    publish(table(result), result, arguments.out, arguments.out and arguments.out.with_suffix(".md"))


if __name__ == "__main__":
    main()
