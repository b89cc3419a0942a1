import json
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from typer.testing import CliRunner

from piu_lora import load_base
from piu_lora.adapter import open_adapter
from piu_lora.attacks import AuditConfig
from piu_lora.cli.app import app
from piu_lora.cli.output import as_text
from piu_lora.cli.tables import audit_parts
from piu_lora.config import ForgetConfig
from piu_lora.errors import BadInput
from piu_lora.evidence import Gallery
from piu_lora.identity import IdentityBank, Threshold
from piu_lora.jobs.auditing.audit import audit
from piu_lora.jobs.auditing.context import _judges, open_attack_context
from piu_lora.jobs.forget import forget
from piu_lora.jobs.request.request import open_request
from piu_lora.jobs.request.session import open_session
from piu_lora.model import find_family
from piu_lora.model.mini import conditioning_bank
from piu_lora.model.mini.export import fresh_portraits

WHO = "mini-0007"


@pytest.fixture(scope="module")
def mini() -> StableDiffusionPipeline:
    return load_base("mini")


@pytest.fixture(scope="module")
def made(mini: StableDiffusionPipeline, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A closed form for the embedded base, of fewer conditions than usual."""
    folder = tmp_path_factory.mktemp("audit") / "adapter"
    few = ("closed.retained=1024", "closed.near=512", "closed.mixtures=16", "evaluation.steps=3")
    forget(
        identity=WHO,
        base=mini,
        out=folder,
        config=ForgetConfig.preset(find_family("mini"), "closed-encoder").updated_from_pairs(few),
        evaluate=False,
    )
    return folder


@pytest.mark.slow
def test_reidentification_from_a_closed_form(mini: StableDiffusionPipeline, made: Path) -> None:
    section = audit(
        made,
        WHO,
        mini,
        attacks=["reidentify"],
        settings=["audit.reidentify_people=256", "audit.reidentify_random=2"],
    ).section
    (entry,) = json.loads(json.dumps(section.to_dict(), allow_nan=False))["attacks"]
    assert entry["figures"]["people"] == 256
    assert entry["figures"]["best_rank"] == 1
    assert entry["succeeded"]
    # Somebody else is not reidentified.
    other = audit(
        made,
        "mini-0500",
        mini,
        attacks=["reidentify"],
        settings=["audit.reidentify_people=256", "audit.reidentify_random=1"],
    ).section
    assert (other.attacks[0].figures["best_rank"] or 0) > 1
    assert WHO not in json.dumps(section.to_dict())
    assert "reidentify" in as_text(audit_parts(section))


def test_a_scene_of_the_embedded_base(mini: StableDiffusionPipeline, made: Path) -> None:
    opened, bank = open_adapter(made), conditioning_bank()
    config = ForgetConfig().updated(opened.receipt.settings)
    session = open_session(mini, faces=config.faces)
    request = open_request(WHO, bank, config, session.reader)
    context = open_attack_context(session, request, opened.change, AuditConfig.preset("quick"))
    (who,) = context.people
    assert [gallery.name for gallery in context.galleries] == ["conditioning", "evaluating"]
    assert who.row == bank.index(WHO)
    assert torch.equal(who.embeddings, request.people[0].subject.embeddings[list(request.people[0].held_out)])
    # Photographs that the references are not made of.
    references = fresh_portraits(who.row, 6).float() / 255
    assert (who.photos[:, None] - references).flatten(2).norm(dim=2).min() > 1
    embedded = context.galleries[-1].embed(who.photos)
    assert context.galleries[-1].verifies(embedded, who.row, 1e-3).all()
    assert context.control.row in request.retained.held_out
    assert abs(float(context.control.centre @ who.centre)) < 0.2
    assert context.control.row not in {
        int((bank.centroids @ each).argmax()) for each in context.others.embeddings
    }
    assert context.recognise is not None
    assert torch.allclose(context.recognise(who.photos), context.galleries[0].embed(who.photos), atol=1e-3)


def test_nobody_can_judge(bank: IdentityBank) -> None:
    few = Gallery(
        "few", lambda images: images, bank.centroids, {}, {1e-3: "20 impostor pairs cannot resolve 0.001"}
    )
    refused = Gallery(
        "refused",
        lambda images: images,
        bank.centroids,
        {},
        {1e-3: Threshold(0.5, 1e-3, 10_000)},
        "no photograph was kept",
    )
    able = Gallery("able", lambda images: images, bank.centroids, {}, {1e-3: Threshold(0.5, 1e-3, 10_000)})
    assert _judges([able, few, refused], 1e-3) == (able,)
    for galleries, reason in (
        ([], "pack=DIR"),
        ([few], r"20 impostor pairs.*audit\.far=0\.01"),
        ([refused], "no photograph was kept"),
    ):
        with pytest.raises(BadInput, match=reason):
            _judges(galleries, 1e-3)


def test_bad_requests_are_refused_before_anything_runs(made: Path) -> None:
    runner = CliRunner()
    for options in (
        ["--attacks", "wish"],
        ["--budget", "endless"],
        ["--set", "audit.images=0"],
        ["--set", "audit.imags=1"],
    ):
        result = runner.invoke(app, ["audit", str(made), "--identity", WHO, *options])
        assert isinstance(result.exception, BadInput), options


@pytest.mark.slow
def test_an_audit_of_the_embedded_base_by_every_attack(mini: StableDiffusionPipeline, tmp_path: Path) -> None:
    """A closed form on the encoder: nobody needs an attack who has the unedited encoder, and the weights name
    the person.
    """
    config = ForgetConfig.preset(find_family("mini"), "closed-encoder")
    forget(identity=WHO, base=mini, out=tmp_path / "adapter", config=config, evaluate=False)
    before = {name: value.clone() for name, value in mini.unet.state_dict().items()}
    shorter = ["audit.relearn_steps=[5, 10, 20]", "audit.inversion_steps=20"]
    tried = ["bypass", "cone", "inversion", "reidentify", "relearn"]  # hosts and templates: below
    section = audit(tmp_path / "adapter", WHO, mini, attacks=tried, settings=shorter).section
    found = {each["name"]: each for each in section.to_dict()["attacks"]}
    assert set(found) == {"bypass", "cone", "inversion", "reidentify", "relearn"}
    figures = found["bypass"]["figures"]
    assert figures["unedited_encoder"] == figures["untouched"] >= 0.5
    assert figures["adapter_on"] < 0.5 <= figures["control_adapter_on"]
    assert found["cone"]["figures"]["radius"] > 0
    assert found["cone"]["figures"]["control_radius"] == 0
    assert found["reidentify"]["figures"]["best_rank"] == 1
    assert found["relearn"]["figures"]["withstood_photos_1"] >= 0
    assert found["relearn"]["figures"]["control_step_0"] >= 0.5
    assert all(torch.equal(value, before[name]) for name, value in mini.unet.state_dict().items())


@pytest.mark.slow
def test_the_sequences_of_the_official_demos(mini: StableDiffusionPipeline, tmp_path: Path) -> None:
    """Nobody comes back after the demos' calls, from a fused base or with a pinned adapter. The control
    person is drawn as before.
    """
    config = ForgetConfig.preset(find_family("mini"), "closed-both")
    forget(identity=WHO, base=mini, out=tmp_path / "adapter", config=config, evaluate=False)
    demos = [
        "LCM-LoRA",
        "demo, LoRA off",
        "demo, LoRA on",
        "demo, LoRA off, pinned adapter",
        "demo, LoRA on, pinned adapter",
        "expression demo, pinned adapter",
    ]
    chosen = ["audit.images=4", "audit.hosts.before=false", f"audit.hosts.only={json.dumps(demos)}"]
    section = audit(tmp_path / "adapter", WHO, mini, attacks=["hosts"], settings=chosen).section
    figures = section.attacks[0].figures
    assert figures["worst"] == 0.0
    assert (figures["control_lowest"] or 0) >= 0.75
