"""Everything that runs a model, on a device that refuses to be mixed with the CPU.

    python -m tests.devices.flows FOLDER

Prints a JSON line for each flow: its name, and the error it ended with. A process of its own: registering a
device makes it the accelerator of all libraries there.
"""

import json
import sys
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch

from piu_lora import (
    ForgetConfig,
    MergeSettings,
    audit,
    check_stack,
    evaluate,
    forget,
    generate,
    load_adapter,
    load_base,
    merge_adapters,
    open_members,
    verify_adapter,
    with_people,
)
from piu_lora.adapter import unload
from piu_lora.attacks import ATTACKS
from piu_lora.jobs.arena.arena import shared_settings
from piu_lora.jobs.arena.contender import Contender
from piu_lora.jobs.arena.round import Round
from piu_lora.jobs.request.request import open_request
from piu_lora.jobs.request.session import open_session
from piu_lora.jobs.stacks.layer_statistics import RefitConfig
from piu_lora.model import find_family
from piu_lora.unlearn import METHODS
from piu_lora.unlearn.baselines import BASELINES, Rendering
from tests.devices.elsewhere import AWAY, away
from tests.tiny import FAST, tiny_bank, tiny_pipeline

SMALL = {"forget_images": 2, "retain_images": 2, "nearest": 1, "anchor_images": 1, "steps": 2}
QUICK = ("closed.retained=64", "closed.near=32", "closed.mixtures=8", "train.steps=2", "train.batch=2")
WHO = "mini-0007"


def flows(folder: Path) -> Iterator[tuple[str, Callable[[], object]]]:
    """Names and what is to be run; later ones use what earlier ones wrote."""
    bank, tiny = tiny_bank(), tiny_pipeline().to(AWAY)
    pipe = load_base("mini", device=AWAY)
    fast = ForgetConfig().updated_from_pairs(FAST)
    small = shared_settings(find_family("mini")).updated({"evaluation": SMALL})

    def made(name: str) -> Path:
        return folder / name

    def forgets(method: str, **train: object) -> Callable[[], object]:
        config = fast.updated({"method": method, "train": train})

        def flow() -> None:
            name = "-".join([method, *train])
            result = forget("person-003", tiny, made(name), bank=bank, config=config, evaluate=False)
            loaded = load_adapter(tiny, result.path, weight=0.5)
            generate(tiny, bank.of("person-003")[:1], [1], steps=2)
            unload(tiny, [loaded])

        return flow

    yield from ((f"forget {method}", forgets(method)) for method in METHODS)
    yield "forget, checkpointed", forgets("piu", gradient_checkpointing=True, micro_batch=1)
    yield "verify", lambda: verify_adapter(made("closed-both"), tiny)

    stack = ["piu", "closed-both"]
    people = ["person-003"] * 2

    def members() -> list[Any]:
        return with_people(open_members([made(name) for name in stack]), people, tiny, bank)

    yield "stack check", lambda: check_stack(members(), tiny, bank, people=4, activations=2)
    refit = MergeSettings(method="refit", refit=RefitConfig(own=8, retained=16, neighbours=4))
    yield "merge", lambda: merge_adapters(members(), made("merged"))
    yield "merge, refit", lambda: merge_adapters(members(), made("refitted"), refit, base=tiny, bank=bank)

    arena: list[Round] = []

    def enter() -> None:
        session = open_session(pipe)
        arena.append(Round(session, open_request(WHO, session.bank, small, session.reader)))

    yield "arena", enter
    few = Rendering(forget=2, retain=2, steps=2, batch=2)
    quick: dict[str, dict[str, Any]] = {
        "esd": {"steps": 1},
        "piu-dense": {"steps": 1, "batch": 2},
        "siss": {"steps": 1, "batch": 2, "rendering": few},
        "wid": {"steps": 1, "batch": 2, "accumulation": 1, "rendering": few},
    }
    for name in (name for name, baseline in BASELINES.items() if not baseline.form_of):
        # In place: the arena's pipeline knows its family already.
        presets = cast(dict[str, Any], find_family("mini").baselines)
        presets[name] = {**presets[name], **quick.get(name, {})}
        yield f"arena {name}", partial(lambda baseline: arena[0].play(Contender(baseline), 0), name)

    def embedded() -> None:
        config = (
            ForgetConfig.preset(find_family("mini"), "closed-encoder")
            .updated_from_pairs(QUICK)
            .updated({"evaluation": SMALL})
        )
        forget(WHO, pipe, made("embedded"), config=config)

    yield "forget, evaluated", embedded
    looks = ["report.sweep_images=0", *(f"evaluation.{key}={value}" for key, value in SMALL.items())]
    yield "evaluate", lambda: evaluate(made("embedded"), WHO, pipe, made("evaluated"), settings=looks)
    yield "verify, evaluated", lambda: verify_adapter(made("embedded"), pipe, identity=WHO)
    for attack in ATTACKS:
        yield f"audit {attack}", partial(audit, made("embedded"), WHO, pipe, attacks=[attack], budget="quick")


def main() -> None:
    """Run them all."""
    torch.set_num_threads(1)
    away()
    for name, flow in flows(Path(sys.argv[1])):
        try:
            flow()
            error = ""
        except Exception:
            error = traceback.format_exc()
        sys.stdout.write(json.dumps({"flow": name, "error": error}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
