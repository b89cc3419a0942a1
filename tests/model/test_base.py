"""Bases by name, from the Hub, from folders; every failure has its own words and mending command."""

import logging
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline

from piu_lora.errors import BadInput, EnvironmentProblem, Incompatible, PiuLoraError
from piu_lora.model import (
    attention_digest,
    base,
    describe,
    encode_embeddings,
    family_of,
    find_family,
    generate,
    load_base,
)
from piu_lora.model.families.arc2face import ARC2FACE, SD15
from tests.arc2face import ENCODER, TINY, UNET, build_unet, write_arc2face, write_sd15
from tests.hub import LoopbackHub


@pytest.fixture(scope="module")
def repositories(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both repositories in a small shape; nobody changes them."""
    folder = tmp_path_factory.mktemp("repositories")
    write_arc2face(folder / "arc2face")
    write_sd15(folder / "sd15")
    return folder


@pytest.fixture
def arc2face(hub: LoopbackHub, repositories: Path) -> LoopbackHub:
    """The Hub with the published layout at the pinned revisions."""
    hub.add_repository(ARC2FACE[0], repositories / "arc2face", revision=ARC2FACE[1])
    hub.add_repository(SD15[0], repositories / "sd15", revision=SD15[1])
    return hub


def people(count: int = 2) -> torch.Tensor:
    return torch.nn.functional.normalize(
        torch.randn(count, 512, generator=torch.Generator().manual_seed(0)), dim=1
    )


def test_the_published_layout_loads_whole(
    arc2face: LoopbackHub, repositories: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    pipe = load_base("arc2face")
    assert "Loading weights" not in capfd.readouterr().err
    assert type(pipe) is StableDiffusionPipeline
    assert isinstance(pipe.scheduler, DPMSolverMultistepScheduler)
    assert pipe.scheduler.config.beta_schedule == "scaled_linear"
    assert pipe.safety_checker is None
    stored = torch.load(repositories / "arc2face" / ENCODER, weights_only=True)
    for name, value in pipe.text_encoder.state_dict().items():
        assert torch.equal(value, stored[f"text_model.{name}"])
    assert generate(pipe, people(), [1, 2], steps=2).shape == (2, 3, 64, 64)


def test_only_what_is_needed_is_downloaded(arc2face: LoopbackHub) -> None:
    load_base("arc2face")
    fetched = {path.split("/resolve/")[1].partition("/")[2] for _, path in arc2face.asked("resolve", "GET")}
    assert fetched == {
        "arc2face/config.json",
        UNET,
        "encoder/config.json",
        ENCODER,
        "vae/config.json",
        "vae/diffusion_pytorch_model.safetensors",
        "scheduler/scheduler_config.json",
        "tokenizer/vocab.json",
        "tokenizer/merges.txt",
        "tokenizer/special_tokens_map.json",
        "tokenizer/tokenizer_config.json",
    }


def test_what_it_is_and_where_it_came_from(arc2face: LoopbackHub) -> None:
    info = describe(load_base("arc2face"))
    assert (info.id, info.revision, info.family.name, info.embedding_width) == (*ARC2FACE, "arc2face", 512)
    assert (info.recognizer.name, info.recognizer.sha256) == ("arcface.onnx", "")


def test_the_recognizer_in_the_cache_is_recognised_by_its_digest(arc2face: LoopbackHub) -> None:
    from huggingface_hub import hf_hub_download

    hf_hub_download(ARC2FACE[0], "arcface.onnx", revision=ARC2FACE[1])
    assert re.fullmatch("[0-9a-f]{64}", describe(load_base("arc2face")).recognizer.sha256)


def test_no_safety_checker_is_said_once(arc2face: LoopbackHub, caplog: pytest.LogCaptureFixture) -> None:
    base._say_once.cache_clear()
    with caplog.at_level(logging.WARNING, "piu_lora"):
        load_base("arc2face")
        load_base("arc2face")
    assert [record.message for record in caplog.records].count(
        "this base has no safety checker: nothing filters what it generates"
    ) == 1


def test_a_warm_cache_needs_no_network(arc2face: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    first = attention_digest(load_base("arc2face").unet)
    arc2face.requests.clear()
    for options in ({}, {"local_files_only": True}):
        assert attention_digest(load_base("arc2face", **options).unet) == first  # type: ignore[arg-type]
    assert arc2face.requests == []


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_the_dtype_is_that_of_every_part(arc2face: LoopbackHub, dtype: torch.dtype) -> None:
    pipe = load_base("arc2face", dtype=dtype)
    assert {pipe.unet.dtype, pipe.text_encoder.dtype, pipe.vae.dtype} == {dtype}


def test_both_revisions_can_be_chosen(arc2face: LoopbackHub, tmp_path: Path) -> None:
    pinned = attention_digest(load_base("arc2face").unet)
    other = arc2face.add_repository(ARC2FACE[0], write_arc2face(tmp_path / "other", seed=7))
    assert attention_digest(load_base("arc2face").unet) == pinned
    for chosen in (
        load_base("arc2face", revision=other),
        load_base(f"arc2face@{other}"),
        load_base(ARC2FACE[0], revision="main"),
    ):
        assert attention_digest(chosen.unet) != pinned
        assert describe(chosen).revision == other
    with pytest.raises(EnvironmentProblem, match="no revision 'elsewhere'"):
        load_base("arc2face", parts_revision="elsewhere", cache_dir=tmp_path / "cold")


def test_a_folder_in_either_layout(arc2face: LoopbackHub, repositories: Path, tmp_path: Path) -> None:
    whole = load_base("arc2face")
    whole.save_pretrained(tmp_path / "saved", max_shard_size="200KB")
    assert list((tmp_path / "saved" / "unet").glob("*-of-*.safetensors"))
    for folder in (tmp_path / "saved", repositories / "arc2face"):
        pipe = load_base(folder)
        # Memory mapped at another offset, the same weights may go through another kernel.
        assert torch.allclose(
            generate(pipe, people(1), [3], steps=2), generate(whole, people(1), [3], steps=2), atol=1e-6
        )
    # A pipeline that was saved remembers what it is; a bare folder has no name that may be written down.
    assert describe(load_base(tmp_path / "saved")).id == ARC2FACE[0]
    assert describe(load_base(repositories / "arc2face")).id == "local"
    assert family_of(tmp_path / "saved") is family_of("arc2face") is find_family("arc2face")


def test_a_hub_id_in_the_layout_of_diffusers(arc2face: LoopbackHub, tmp_path: Path) -> None:
    whole = load_base("arc2face")
    whole.save_pretrained(tmp_path / "saved", max_shard_size="200KB")
    arc2face.add_repository("somebody/fused", tmp_path / "saved")
    pipe = load_base("somebody/fused")
    assert attention_digest(pipe.unet) == attention_digest(whole.unet)
    assert load_base("somebody/fused", local_files_only=True) is not None


def test_parts_that_do_not_fit_are_refused(hub: LoopbackHub, repositories: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mixed"
    shutil.copytree(repositories / "arc2face", folder)
    hub.add_repository(SD15[0], repositories / "sd15", revision=SD15[1])
    shutil.rmtree(folder / "arc2face")
    build_unet(replace(TINY, hidden=528)).save_pretrained(folder / "arc2face")
    with pytest.raises(Incompatible, match=r"the UNet attends to width 528 .* the encoder gives 520"):
        load_base(folder)


def refused(kind: type[PiuLoraError], *parts: str, name: str = "arc2face", **options: object) -> None:
    with pytest.raises(kind) as error:
        load_base(name, **options)  # type: ignore[arg-type]
    for part in parts:
        assert part in str(error.value), str(error.value)


FETCH = f"hf download {ARC2FACE[0]} arc2face/config.json --revision {ARC2FACE[1]}"


def test_a_gated_repository(arc2face: LoopbackHub, naps: list[float]) -> None:
    arc2face.store.get(ARC2FACE[0]).gated = True
    arc2face.add_token("valid")
    for token in (None, "valid"):
        refused(
            EnvironmentProblem,
            f"{ARC2FACE[0]!r} is gated",
            "accept its conditions",
            "hf auth login",
            token=token,
        )


def test_a_private_or_absent_repository(arc2face: LoopbackHub) -> None:
    arc2face.store.get(ARC2FACE[0]).private = True
    refused(EnvironmentProblem, "no repository", "that you can see", "hf auth login")
    refused(EnvironmentProblem, "no repository 'nobody/nothing'", name="nobody/nothing")


def test_a_wrong_token_is_named_and_never_shown(
    arc2face: LoopbackHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(
        EnvironmentProblem, match="refuses your token: run `hf auth login`, or unset HF_TOKEN"
    ) as error:
        load_base("arc2face", token="hf_secret")
    assert "hf_secret" not in str(error.value)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    refused(EnvironmentProblem, "refuses your token")


def test_no_network(arc2face: LoopbackHub, naps: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    arc2face.drop("resolve", times=None)
    refused(EnvironmentProblem, "Check the network", FETCH)
    arc2face.faults.clear()
    refused(EnvironmentProblem, "the Hub may not be asked", FETCH, local_files_only=True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    refused(EnvironmentProblem, "the Hub may not be asked", FETCH)


def test_a_hub_that_is_down(arc2face: LoopbackHub, naps: list[float]) -> None:
    arc2face.fail("resolve", 503, times=None)
    refused(EnvironmentProblem, "the Hub answers 503; try again later", FETCH)


def test_a_cut_connection_and_an_error_are_tried_again(arc2face: LoopbackHub, naps: list[float]) -> None:
    arc2face.cut(UNET, after=1000)
    arc2face.fail(ENCODER, 500)
    assert load_base("arc2face") is not None


def test_a_connection_that_keeps_breaking(arc2face: LoopbackHub, naps: list[float]) -> None:
    arc2face.cut(UNET, after=1000, times=None)
    refused(EnvironmentProblem, f"{UNET} of", "could not be downloaded", "what arrived whole is kept")


def test_a_slow_hub_is_waited_for(arc2face: LoopbackHub) -> None:
    arc2face.slow(ENCODER, 0.3)
    assert load_base("arc2face") is not None


def test_wrong_bytes_of_the_right_length_are_thrown_away(arc2face: LoopbackHub) -> None:
    arc2face.corrupt(re.compile("resolve.*" + UNET))
    refused(EnvironmentProblem, f"{UNET} of", "arrived damaged", "--force-download")
    assert load_base("arc2face") is not None


def half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("name", [UNET, ENCODER, "arc2face/config.json", "encoder/config.json"])
def test_a_half_downloaded_file(arc2face: LoopbackHub, hub_cache: Path, name: str) -> None:
    load_base("arc2face")
    (found,) = hub_cache.glob(f"models--FoivosPar--Arc2Face/snapshots/*/{name}")
    half(found.resolve())
    refused(
        EnvironmentProblem,
        "cannot be read",
        f"hf download {ARC2FACE[0]} {name} --revision {ARC2FACE[1]} --force-download",
    )


def test_a_file_missing_from_a_cache_without_network(arc2face: LoopbackHub, hub_cache: Path) -> None:
    load_base("arc2face")
    next(hub_cache.glob(f"models--FoivosPar--Arc2Face/snapshots/*/{ENCODER}")).unlink()
    refused(EnvironmentProblem, f"{ENCODER} of", "not in the cache", "hf download", local_files_only=True)


def test_a_repository_without_its_weights(arc2face: LoopbackHub, repositories: Path, tmp_path: Path) -> None:
    shutil.copytree(repositories / "arc2face", tmp_path / "lacking")
    (tmp_path / "lacking" / ENCODER).unlink()
    arc2face.add_repository("somebody/lacking", tmp_path / "lacking")
    refused(EnvironmentProblem, "holds no encoder/model.safetensors or", ENCODER, name="somebody/lacking")
    refused(BadInput, "lacks encoder/model.safetensors or", ENCODER, name=str(tmp_path / "lacking"))


class Bomb:
    """A pickle that would leave a trace if it were run."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[str], object], tuple[str]]:
        return os.mkdir, (str(self.path),)


def test_a_pickle_is_never_run(arc2face: LoopbackHub, repositories: Path, tmp_path: Path) -> None:
    shutil.copytree(repositories / "arc2face", tmp_path / "bomb")
    torch.save({"weight": Bomb(tmp_path / "boom")}, tmp_path / "bomb" / ENCODER)
    refused(BadInput, "holds more than tensors; it was not run", name=str(tmp_path / "bomb"))
    assert not (tmp_path / "boom").exists()


@pytest.mark.parametrize("change", ["missing", "reshaped"])
def test_weights_that_are_not_all_there(
    arc2face: LoopbackHub, repositories: Path, tmp_path: Path, change: str
) -> None:
    shutil.copytree(repositories / "arc2face", tmp_path / "other")
    state = torch.load(tmp_path / "other" / ENCODER, weights_only=True)
    key = "text_model.final_layer_norm.weight"
    state[key] = torch.zeros(3)
    if change == "missing":
        del state[key]
    torch.save(state, tmp_path / "other" / ENCODER)
    refused(
        BadInput,
        "is not the text_encoder of an Arc2Face",
        "final_layer_norm.weight",
        name=str(tmp_path / "other"),
    )


@pytest.mark.parametrize("name", ["nonsense", "a/b/c", "x" * 5000, "./nowhere", "-/.."])
def test_a_base_that_is_none(hub: LoopbackHub, name: str) -> None:
    refused(BadInput, "pass mini, arc2face, a folder", name=name)


def test_a_folder_that_holds_no_base(tmp_path: Path) -> None:
    refused(
        BadInput,
        "neither model_index.json (diffusers) nor arc2face/config.json (Arc2Face)",
        name=str(tmp_path),
    )


def test_embeddings_of_the_real_width_reach_the_encoder(arc2face: LoopbackHub) -> None:
    pipe = load_base("arc2face")
    first, second = encode_embeddings(pipe.text_encoder, pipe.tokenizer, people())
    assert first.shape == (12, 520)
    assert (first[:4] == second[:4]).all()
    assert (first[4:] - second[4:]).abs().amax(dim=1).min() > 1e-4
