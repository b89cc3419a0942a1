"""Every job runs on a family that one file adds, and knows nothing of it but what that file says."""

import ast
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline

from piu_lora import (
    ForgetConfig,
    ForgetResult,
    audit,
    check_stack,
    declare_family,
    evaluate,
    find_family,
    forget,
    fuse_adapters,
    load_base,
    merge_adapters,
    open_members,
    pull,
    push,
    verify_adapter,
    with_people,
)
from piu_lora.adapter import read_adapter
from piu_lora.errors import BadInput, Incompatible
from piu_lora.identity import IdentityBank
from piu_lora.jobs.arena.contender import known_methods
from piu_lora.jobs.request.request import bank_for
from piu_lora.model import FAMILIES, TokenSample, describe, encode_embeddings, family_of, identity_position
from piu_lora.model.family import register
from tests.families import small
from tests.hub import LoopbackHub
from tests.tiny import tiny_pipeline

ROOT = Path(__file__).parent.parent.parent
WHO = "small-003"
PRESET = small.FAMILY.presets[""]
REPO = "tester/small-forgotten"


FAMILIES.pop("small")  # other tests, in the same process, know the families of the package only


@pytest.fixture(scope="module", autouse=True)
def registered() -> Iterator[None]:
    """The family, for the tests of this file."""
    register(small.FAMILY)
    yield
    del FAMILIES["small"]


@pytest.fixture(scope="module")
def base() -> StableDiffusionPipeline:
    return load_base("small")


@pytest.fixture(scope="module")
def made(base: StableDiffusionPipeline, tmp_path_factory: pytest.TempPathFactory) -> list[ForgetResult]:
    """Two adapters with the presets of the family: one trained, one solved for."""
    folder = tmp_path_factory.mktemp("adapters")
    return [
        forget(identity, base, folder / method, config=ForgetConfig.preset(small.FAMILY, method))
        for identity, method in ((WHO, "piu"), ("small-004", "closed-kv"))
    ]


def test_a_base_that_states_nothing_is_recognised_by_its_shape() -> None:
    info = describe(small.pipeline())
    assert (info.family, info.embedding_width) == (small.FAMILY, small.WIDTH)
    assert info.recognizer == small.bank().recognizer
    assert family_of(small.folder()) is family_of("small") is find_family("small") is small.FAMILY


def test_a_base_that_no_family_recognises_is_refused_with_the_reasons(tmp_path: Path) -> None:
    pipe = tiny_pipeline()
    del pipe.text_encoder.config.piu_lora
    reasons = (
        r"no base family recognises .*arc2face: unet\.cross_attention_dim is 32, not 768.*"
        r"mini: unet\.in_channels is 4, not 8.*small: unet\.cross_attention_dim is 32, not 40.*family=NAME"
    )
    with pytest.raises(Incompatible, match=reasons):
        describe(pipe)
    pipe.save_pretrained(tmp_path / "unknown")
    calls: list[Callable[[], object]] = [
        lambda: family_of(tmp_path / "unknown"),
        lambda: load_base(tmp_path / "unknown"),
    ]
    for call in calls:
        with pytest.raises(Incompatible, match=reasons):
            call()
    # The caller says which it is: for a loaded one, by argument, or with the name.
    declare_family(pipe, "tiny")
    assert describe(pipe).family.name == "tiny"
    for loaded in (load_base(tmp_path / "unknown", family="tiny"), load_base(f"tiny={tmp_path / 'unknown'}")):
        assert describe(loaded).family.name == "tiny"
    assert family_of(f"tiny={tmp_path / 'unknown'}").name == "tiny"
    with pytest.raises(BadInput, match=r"unknown base family 'smal': did you mean small\?"):
        load_base(tmp_path / "unknown", family="smal")


def test_a_base_that_states_its_family_is_no_other(tmp_path: Path) -> None:
    tiny_pipeline().save_pretrained(tmp_path / "tiny")
    with pytest.raises(BadInput, match="states the family 'tiny', not 'small'"):
        load_base(tmp_path / "tiny", family="small")


def test_a_name_is_taken_once() -> None:
    register(small.FAMILY)
    with pytest.raises(ValueError, match="'small' is registered already"):
        register(replace(small.FAMILY, label="another"))


@torch.no_grad()
def test_the_condition_follows_the_prompt_of_the_family(base: StableDiffusionPipeline) -> None:
    encoder, tokenizer, embedding = base.text_encoder, base.tokenizer, small.bank().of(WHO)[:1]
    words = ["<|startoftext|>", "x</w>", "of</w>", "a</w>", "person</w>", *["<|endoftext|>"] * 3]
    tokens = tokenizer.convert_tokens_to_ids(words)
    rows = encoder.embeddings.token_embedding.weight[tokens].clone()
    rows[1] = torch.nn.functional.pad(embedding[0], (0, 40 - small.WIDTH))
    rows = rows + encoder.embeddings.position_embedding.weight
    mask = torch.full((8, 8), torch.finfo(torch.float32).min).triu(1)[None, None]
    states = encoder.encoder(inputs_embeds=rows[None], attention_mask=mask, is_causal=True).last_hidden_state
    wanted = encoder.final_layer_norm(states)
    assert torch.allclose(encode_embeddings(encoder, tokenizer, embedding), wanted, atol=1e-5)
    prompt = small.FAMILY.prompt
    assert identity_position(tokenizer, prompt) == 1
    assert TokenSample.of(tokenizer, 0, from_identity=True, prompt=prompt).places == tuple(range(1, 8))


def test_forget_and_evaluate(made: list[ForgetResult], base: StableDiffusionPipeline, tmp_path: Path) -> None:
    for result in made:
        receipt = read_adapter(result.path).receipt
        assert (receipt.base.id, receipt.base.family) == ("local", "small")
        assert result.evaluation is not None
        assert {module.partition(".")[0] for module in read_adapter(result.path).change} == {"unet"}
    assert made[0].receipt.settings["lora"]["blocks"] == tuple(PRESET["lora"]["blocks"])
    few = ("report.leak_images=2", "report.sweep_images=0")
    report = evaluate(made[0].path, WHO, base, tmp_path / "report", settings=few)
    assert report.document["base"]["family"] == "small"
    assert (tmp_path / "report" / "report.html").exists()


def test_verify_by_name(made: list[ForgetResult]) -> None:
    assert verify_adapter(made[0].path, "small")


@pytest.mark.slow
def test_audit(made: list[ForgetResult], base: StableDiffusionPipeline, tmp_path: Path) -> None:
    done = audit(made[0].path, WHO, base, tmp_path / "audit", budget="quick")
    names = {entry["name"] for entry in done.document["audit"]["attacks"]}
    assert names >= {"cone", "inversion", "relearn", "reidentify"}


def test_a_method_that_changes_a_component_without_adapters_is_refused(
    base: StableDiffusionPipeline, tmp_path: Path
) -> None:
    for method in ("distil-encoder", "closed-encoder"):
        config = ForgetConfig.preset(small.FAMILY, method).updated(small.FAMILY.presets["closed-kv"])
        with pytest.raises(
            BadInput, match=f"'{method}' changes the text_encoder of the base.* only unet may"
        ):
            forget(WHO, base, tmp_path / "adapter", config=config.updated({"train": {"start": ""}}))
        assert not (tmp_path / "adapter").exists()


def test_a_baseline_that_needs_a_recognizer_with_gradients_has_none() -> None:
    assert "wid" not in known_methods(small.FAMILY)
    assert "uce" in known_methods(small.FAMILY)


def test_stack(made: list[ForgetResult], base: StableDiffusionPipeline, tmp_path: Path) -> None:
    members = with_people(open_members([each.path for each in made]), [WHO, "small-004"], base)
    check = check_stack(members, base)
    assert len(check.ids) == 2
    merged = merge_adapters(members, tmp_path / "merged", base=base)
    assert read_adapter(merged.path).receipt.base.family == "small"
    facts = fuse_adapters(open_members([merged.path]), "small", tmp_path / "fused")
    assert facts
    fused = load_base(tmp_path / "fused")
    assert describe(fused).family is small.FAMILY


def test_push(
    made: list[ForgetResult], hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    hub.add_token("hf_small", "tester", write=True)
    monkeypatch.setenv("HF_TOKEN", "hf_small")
    monkeypatch.setattr("piu_lora.hub.upload._pause", lambda _: None)
    done = push(made[0].path, REPO, identity=WHO)
    assert done.changed
    assert 'load_base("small")' in done.card
    assert pull(REPO, tmp_path / "back").id == read_adapter(made[0].path).id


def test_the_bank_goes_by_the_name_of_the_family() -> None:
    bank: IdentityBank = bank_for("arc2face", "small")
    assert bank is small.bank()


def test_nothing_outside_model_asks_for_the_name_of_a_family() -> None:
    names, places = {"mini", "arc2face"}, []
    for path in sorted((ROOT / "piu_lora").rglob("*.py")):
        if path.is_relative_to(ROOT / "piu_lora" / "model"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Compare):
                sides = [node.left, *node.comparators]
                literals = {
                    each.value for side in sides for each in ast.walk(side) if isinstance(each, ast.Constant)
                }
                if literals & names:
                    places.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert places == []
    assert names <= FAMILIES.keys()


def test_the_page_shows_this_file_and_its_example_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (ROOT / "docs" / "contributing" / "add-a-base.md").read_text()
    title = ' title="tests/families/small.py"'
    blocks = dict(re.findall(r"^```python([^\n]*)\n(.*?)^```", page, re.M | re.S))
    assert blocks[title] == (ROOT / "tests" / "families" / "small.py").read_text()
    monkeypatch.chdir(tmp_path)
    exec(blocks[""], {})
    assert read_adapter(tmp_path / "adapters" / "small").receipt.base.family == "small"
