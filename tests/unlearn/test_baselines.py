"""The baselines against their formulas, each written here a second time."""

import dataclasses

import pytest
import torch
from diffusers import DDPMScheduler, StableDiffusionPipeline

from piu_lora.config import ForgetConfig
from piu_lora.errors import BadInput
from piu_lora.identity import IdentityBank
from piu_lora.model import encode_embeddings, find_family
from piu_lora.unlearn.baselines import BASELINES, BaselineProblem, Rendering, Snapshots, find_baseline
from piu_lora.unlearn.baselines.esd import esd_target
from piu_lora.unlearn.baselines.parts import noise_schedule
from piu_lora.unlearn.baselines.pictures import latents_of, render_forget
from piu_lora.unlearn.baselines.piu_dense import draw_batch
from piu_lora.unlearn.baselines.siss import averaging, subtracted
from piu_lora.unlearn.baselines.uce import edited_weight, uce_layers
from piu_lora.unlearn.baselines.wid import one_step
from tests.tiny import tiny_pipeline

TINY = Rendering(forget=3, retain=4, steps=2, batch=4)
QUICK = {
    "uce": {},
    "esd": {"steps": 2, "lr": 1e-2},
    "piu-dense": {"steps": 2, "batch": 2, "accumulation": 1, "lr": 1e-2},
    "siss": {"steps": 2, "batch": 4, "micro_batch": 2, "lr": 1e-2, "rendering": TINY},
    "wid": {"steps": 2, "batch": 2, "accumulation": 2, "lr": 1e-2, "rendering": TINY},
    "speed": {"ridge": 0.1, "threshold": 0.5},
    "cure": {},
}
ATTENTION = {
    "uce": ("attn2.to_k.weight", "attn2.to_v.weight"),
    "speed": ("attn2.to_v.weight",),
    "cure": ("attn2.to_k.weight", "attn2.to_v.weight"),
    "esd": (".attn2.",),
    "piu-dense": (".attn2.",),
}


def problem_of(bank: IdentityBank) -> BaselineProblem:
    projection = torch.randn(3, 16, generator=torch.Generator().manual_seed(0))
    return BaselineProblem(
        bank.of(bank.ids[0]),
        bank.centroids[1],
        bank.embeddings[12:],
        bank.centroids[2:],
        lambda images: torch.nn.functional.normalize(images.mean(dim=(2, 3)) @ projection, dim=1),
    )


def test_the_published_settings() -> None:
    settings = {name: baseline.settings().to_dict() for name, baseline in BASELINES.items()}
    for name, wanted in {
        "uce": {"erase": 20, "preserve": 1, "ridge": 0.7, "retained": 20},
        "esd": {"steps": 1000, "lr": 1e-5, "batch": 1, "eta": 1},
        "siss": {"steps": 60, "lr": 5e-6, "beta": 0.1, "batch": 64, "clip": 1.0},
        "wid": {"steps": 100, "lr": 5e-6, "batch": 4, "accumulation": 16, "identity_weight": 0.1},
        "piu-dense": {
            "steps": 400,
            "batch": 16,
            "accumulation": 2,
            "lr": 1e-4,
            "weight_decay": 0.01,
            "eta": 1,
            "retain_weight": 10,
        },
    }.items():
        assert wanted.items() <= settings[name].items()
    plain = {name for name, baseline in BASELINES.items() if not baseline.form_of}
    assert find_family("mini").baselines.keys() == plain


def test_forms_are_set_over_what_suits_the_base() -> None:
    family = find_family("mini")
    for name, wanted in {
        "uce-official": {"anchor_kept": True, "retained": 20, "erase": 20.0, "token": "mean"},
        "uce-all": {"anchor_kept": True, "retained": 0, "erase": 5.0},
        "uce-authors": {"token": "last", "retained": 0, "erase": 1.0, "ridge": 0.5},
        "siss-official": {"ema": "official", "noise": "shared", "group": 16, "lr": 1e-3},
        "siss-authors": {"ema": "none", "noise": "shared", "lr": 1e-3},
        "wid-official": {"target": "own", "clip": 1.0, "lr": 1e-4},
        "wid-anchor": {"target": "anchor", "clip": 1.0, "lr": 1e-4},
        "ume-anchor": {"target": "anchor", "rank": 8},
    }.items():
        assert wanted.items() <= find_baseline(name).settings_for(family).to_dict().items()
        assert BASELINES[name].form_of == name.partition("-")[0]
    assert {name for name, baseline in BASELINES.items() if not baseline.about} == set()


@pytest.mark.parametrize("name", sorted(QUICK))
def test_a_baseline_edits_what_it_says_and_nothing_else(name: str, bank: IdentityBank) -> None:
    pipe, baseline = tiny_pipeline(), find_baseline(name)
    before = {
        part: {key: value.clone() for key, value in getattr(pipe, part).state_dict().items()}
        for part in ("unet", "vae", "text_encoder")
    }
    baseline.run(pipe, problem_of(bank), baseline.settings(**QUICK[name]), seed=0)
    for part in ("vae", "text_encoder"):
        assert all(
            torch.equal(value, before[part][key]) for key, value in getattr(pipe, part).state_dict().items()
        )
    changed = {
        key for key, value in pipe.unet.state_dict().items() if not torch.equal(value, before["unet"][key])
    }
    assert changed
    if name in ATTENTION:
        assert all(any(part in key for part in ATTENTION[name]) for key in changed)
    else:
        assert len(changed) > 0.8 * len(before["unet"])
    assert not any(parameter.requires_grad for parameter in pipe.unet.parameters())
    assert all(torch.isfinite(value).all() for value in pipe.unet.state_dict().values())
    again = tiny_pipeline()
    baseline.run(again, problem_of(bank), baseline.settings(**QUICK[name]), seed=0)
    edited = pipe.unet.state_dict()
    assert all(torch.equal(value, edited[key]) for key, value in again.unet.state_dict().items())


def test_uce_minimises_its_three_terms() -> None:
    """The minimiser of UCE's objective, found without its formula: the gradient vanishes there."""
    generator = torch.Generator().manual_seed(0)
    w, f, g, r = (
        torch.randn(*shape, generator=generator, dtype=torch.float64)
        for shape in ((5, 7), (4, 7), (7,), (9, 7))
    )
    found = edited_weight(w, f, g, r, erase=20, preserve=1, ridge=0.7).requires_grad_(True)
    objective = (
        20 * (f @ found.T - w @ g).square().sum()
        + (r @ found.T - r @ w.T).square().sum()
        + 0.7 * (found - w).square().sum()
    )
    objective.backward()
    assert found.grad is not None
    assert float(found.grad.abs().max()) < 1e-9


def test_uce_keeps_whom_it_is_told_to_keep(bank: IdentityBank) -> None:
    """The anchor keeps its output better where it is among those kept, and everybody where all are."""

    def left(name: str, rows: torch.Tensor) -> float:
        pipe, problem = tiny_pipeline(), problem_of(bank)
        layer = uce_layers(pipe.unet)[0]
        with torch.no_grad():
            means = encode_embeddings(pipe.text_encoder, pipe.tokenizer, rows).mean(dim=1)
        before = means @ layer.weight.T
        find_baseline(name).run(pipe, problem, find_baseline(name).settings_for(find_family("tiny")), seed=0)
        return float((means @ layer.weight.T - before).detach().norm())

    anchor, others = bank.centroids[1][None], bank.centroids[2:]
    assert left("uce-official", anchor) < left("uce", anchor)
    assert left("uce-all", others) < left("uce-official", others)


def test_siss_with_and_without_an_average(bank: IdentityBank) -> None:
    """Without an average the weights are those of the last step; the official decay after s updates is
    (1 + s) / (10 + s).
    """
    parameter = torch.nn.Parameter(torch.zeros(1))
    assert averaging([parameter], find_baseline("siss-authors").settings(ema="none")) is None
    average = averaging([parameter], find_baseline("siss").settings(ema="official"))
    parameter.data += 1.0
    average.step([parameter])
    average.step([parameter])
    assert average.cur_decay_value == pytest.approx(2 / 11)  # the average begins at the first update
    kept = []
    for ema in ("none", "official"):
        pipe, settings = tiny_pipeline(), {**QUICK["siss"], "ema": ema, "noise": "shared", "group": 2}
        find_baseline("siss").run(pipe, problem_of(bank), find_baseline("siss").settings(**settings), seed=0)
        kept.append(pipe.unet.conv_in.weight - tiny_pipeline().unet.conv_in.weight)
    assert 0 < float(kept[1].norm()) < float(kept[0].norm())


@pytest.mark.parametrize("name", ["esd", "piu-dense", "siss", "wid"])
def test_a_shorter_run_is_the_beginning_of_a_longer_one(name: str, bank: IdentityBank) -> None:
    """So a watcher of one run sees what every shorter one would leave."""
    pipe, baseline, seen = tiny_pipeline(levels=2), find_baseline(name), {}

    def weights(pipe: StableDiffusionPipeline) -> torch.Tensor:
        return torch.cat([value.flatten() for value in pipe.unet.state_dict().values()])

    watcher = Snapshots(frozenset({1}), lambda done: seen.update({done: weights(pipe)}))
    settings = baseline.settings(**{**QUICK[name], "steps": 2})
    baseline.run(pipe, dataclasses.replace(problem_of(bank), snapshots=watcher), settings, seed=0)
    short = tiny_pipeline(levels=2)
    baseline.run(short, problem_of(bank), settings.updated({"steps": 1}), seed=0)
    assert seen.keys() == {1}
    assert torch.equal(seen[1], weights(short))


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        ({"scope": "surgical"}, lambda name: ".attn2." in name and not name.startswith("down_blocks.1")),
        ({"scope": "cross-attention"}, lambda name: ".attn2." in name),
        ({"scope": "full"}, lambda name: True),
    ],
)
def test_the_scopes_of_the_papers_ablation(settings, wanted, bank: IdentityBank) -> None:
    pipe, dense = tiny_pipeline(), find_baseline("piu-dense")
    before = {name: value.clone() for name, value in pipe.unet.state_dict().items()}
    quick = {**QUICK["piu-dense"], "weight_decay": 0.1, "steps": 1, **settings}
    dense.run(pipe, problem_of(bank), dense.settings(**quick), seed=0)
    changed = {name for name, value in pipe.unet.state_dict().items() if not torch.equal(value, before[name])}
    assert changed
    assert all(wanted(name) for name in changed)
    if settings["scope"] != "surgical":
        assert any(name.startswith("down_blocks.1") for name in changed)


def test_the_samplings_of_the_papers_ablation(bank: IdentityBank) -> None:
    pipe, generator = tiny_pipeline(), torch.Generator().manual_seed(0)
    rows = bank.of(bank.ids[0])
    schedule = noise_schedule(pipe)
    encode = lambda embeddings: embeddings  # noqa: E731
    single = draw_batch(pipe.unet, encode, schedule, rows, rows, 6, generator, mixed=False)
    assert all(any(torch.equal(row, known) for known in rows) for row in single.forget_conditions)
    centre = torch.nn.functional.normalize(rows.mean(dim=0), dim=0)
    alone = draw_batch(pipe.unet, encode, schedule, centre[None], rows, 6, generator)
    assert torch.allclose(alone.forget_conditions, centre.expand(6, -1), atol=1e-6)


def test_every_baseline_has_a_dial() -> None:
    for baseline in BASELINES.values():
        assert baseline.dial is not None
        assert len(baseline.dial.pairs(baseline.settings_for(find_family("mini")))) >= 4
    esd, uce = find_baseline("esd"), find_baseline("uce")
    assert esd.dial.pairs(esd.settings(steps=300)) == ["steps=38", "steps=75", "steps=150", "steps=225"]
    assert uce.dial.pairs(uce.settings(erase=20.0))[:2] == ["erase=0.2", "erase=0.6"]


def test_wid_asks_for_each_image_s_own_face(bank: IdentityBank) -> None:
    """With a recognizer that is constant the target is met at once: the identity term vanishes."""
    problem = dataclasses.replace(
        problem_of(bank), recognise=lambda images: torch.ones(len(images), 16) + 0 * images.mean()
    )
    edited = []
    for weight in (0.1, 1000.0):
        pipe = tiny_pipeline()
        settings = {**QUICK["wid"], "target": "own", "clip": 1.0, "identity_weight": weight}
        find_baseline("wid").run(pipe, problem, find_baseline("wid").settings(**settings), seed=0)
        edited.append(pipe.unet.conv_in.weight)
    assert torch.equal(*edited)


def test_photographs_take_the_place_of_rendered_images(bank: IdentityBank) -> None:
    pipe, problem = tiny_pipeline(), problem_of(bank)
    size = pipe.vae.config.sample_size
    photographs = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    pictures = render_forget(
        pipe, dataclasses.replace(problem, photographs=photographs), TINY, torch.Generator()
    )
    assert torch.equal(pictures.embeddings, problem.forget[:2])
    assert torch.equal(pictures.latents, latents_of(pipe, photographs))


def test_uce_turns_the_person_into_the_anchor_for_keys_and_values(bank: IdentityBank) -> None:
    pipe, problem = tiny_pipeline(), problem_of(bank)

    def means(rows: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return encode_embeddings(pipe.text_encoder, pipe.tokenizer, rows).mean(dim=1)

    layer = uce_layers(pipe.unet)[0]
    wanted, before = means(problem.anchor[None]) @ layer.weight.T, means(problem.forget) @ layer.weight.T
    find_baseline("uce").run(pipe, problem, find_baseline("uce").settings(), seed=0)
    after = means(problem.forget) @ layer.weight.T
    assert float((after - wanted).norm()) < 0.5 * float((before - wanted).norm())


def test_the_small_formulas() -> None:
    a, b = torch.tensor([2.0, 0.0]), torch.tensor([5.0, 1.0])
    assert esd_target(a, b, 1.0).tolist() == [-1.0, -1.0]
    retain, forget = [torch.tensor([3.0]), torch.tensor([4.0])], [torch.tensor([0.0]), torch.tensor([2.0])]
    assert [part.tolist() for part in subtracted(retain, forget, 0.1)] == [
        [3.0],
        [pytest.approx(4 - 0.1 * 5 / 2 * 2)],
    ]
    schedule = DDPMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012)
    clean, noise = torch.randn(3, 4, 8, 8), torch.randn(3, 4, 8, 8)
    times = torch.tensor([1, 300, 700])
    assert torch.allclose(
        one_step(schedule, schedule.add_noise(clean, noise, times), times, noise), clean, atol=1e-3
    )


def test_what_cannot_run_is_refused(bank: IdentityBank, pipe: StableDiffusionPipeline) -> None:
    problem = problem_of(bank)
    with pytest.raises(BadInput, match="unknown baseline 'mace'; known: cure, esd"):
        find_baseline("mace")
    with pytest.raises(BadInput, match="uce takes UceSettings, not EsdSettings"):
        find_baseline("uce").run(pipe, problem, find_baseline("esd").settings(), 0)
    with pytest.raises(BadInput, match="needs a differentiable recognizer"):
        find_baseline("wid").run(
            pipe, dataclasses.replace(problem, recognise=None), find_baseline("wid").settings(), 0
        )
    assert ForgetConfig().method == "piu"
