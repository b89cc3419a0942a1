"""What verify catches: each thing that can differ, tampered with so that everything before it still fits."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file, save_file

from piu_lora import ForgetResult
from piu_lora.adapter import Factors, read_adapter, write_adapter
from piu_lora.adapter.folder import file_digest
from piu_lora.errors import BadInput
from piu_lora.evidence import compare_probe, measure_probe, probe_facts
from piu_lora.jobs.evaluation.verify import verify_adapter
from piu_lora.model import adapters_disabled
from tests.tiny import tiny_pipeline


@pytest.fixture
def made(trained: ForgetResult, tmp_path: Path) -> Path:
    """An adapter as the job makes it, without figures, as the tiny base draws no faces; to tamper with."""
    return Path(shutil.copytree(trained.path, tmp_path / "made"))


def edit(folder: Path, **changes: object) -> None:
    receipt = json.loads((folder / "forget.json").read_text())
    (folder / "forget.json").write_text(json.dumps({**receipt, **changes}))


def sign(folder: Path) -> None:
    names = json.loads((folder / "forget.json").read_text())["files"]
    edit(folder, files={name: file_digest(folder / name) for name in names})


def failure(folder: Path, pipe: StableDiffusionPipeline) -> tuple[str, str]:
    check = verify_adapter(folder, pipe).failure
    assert check is not None
    return check.name, check.differs


def test_a_sound_adapter(made: Path, pipe: StableDiffusionPipeline) -> None:
    verdict = verify_adapter(made, pipe)
    assert verdict.failure is None
    assert [(check.name, bool(check.skipped)) for check in verdict.checks] == [
        ("files", False),
        ("weights", False),
        ("base", False),
        ("effect", False),
        ("figures", True),
    ]
    assert not pipe.get_list_adapters()


def test_a_changed_file(made: Path, pipe: StableDiffusionPipeline) -> None:
    (made / "README.md").write_text("better than it is")
    name, differs = failure(made, pipe)
    assert (name, "README.md" in differs) == ("files", True)


def test_changed_settings(made: Path, pipe: StableDiffusionPipeline) -> None:
    receipt = json.loads((made / "forget.json").read_text())
    edit(made, settings={**receipt["settings"], "seed": 7})
    assert failure(made, pipe)[0] == "weights"


def test_other_weights_for_peft(made: Path, pipe: StableDiffusionPipeline) -> None:
    state = load_file(made / "peft-checkpoint" / "adapter_model.safetensors")
    save_file(
        {key: value * 2 for key, value in state.items()},
        made / "peft-checkpoint" / "adapter_model.safetensors",
    )
    sign(made)
    name, differs = failure(made, pipe)
    assert (name, "for PEFT" in differs) == ("weights", True)


def test_another_base(made: Path) -> None:
    name, differs = failure(made, tiny_pipeline(seed=5))
    assert (name, "other cross-attention weights" in differs) == ("base", True)


@pytest.mark.parametrize("scale", [0.0, 0.5, 2.0])
def test_weights_that_do_something_else(
    made: Path, pipe: StableDiffusionPipeline, tmp_path: Path, scale: float
) -> None:
    """All files written anew and signed: only the effect tells."""
    adapter = read_adapter(made)
    (tmp_path / "other").mkdir()
    write_adapter(
        tmp_path / "other",
        {module: Factors(f.down, f.up * scale) for module, f in adapter.change.items()},
        adapter.receipt,
    )
    name, differs = failure(tmp_path / "other", pipe)
    assert (name, "predicted noise" in differs) == ("effect", True)


def test_without_a_probe_it_must_at_least_do_something(
    made: Path, pipe: StableDiffusionPipeline, tmp_path: Path
) -> None:
    adapter = read_adapter(made)
    receipt = replace(adapter.receipt, probe={})
    for name, scale in (("same", 1.0), ("nothing", 0.0)):
        (tmp_path / name).mkdir()
        write_adapter(
            tmp_path / name,
            {module: Factors(f.down, f.up * scale) for module, f in adapter.change.items()},
            receipt,
        )
    verdict = verify_adapter(tmp_path / "same", pipe)
    assert verdict.failure is None
    assert "states no probe" in verdict.checks[3].skipped
    assert failure(tmp_path / "nothing", pipe) == ("effect", "loaded, it changes nothing")


PROBES = [
    {"mean": "x"},
    {"mean": 1.0},
    {"mean": 1.0, "interval": [1]},
    {"seed": [], "mean": 1, "interval": [0, 1]},
]


@pytest.mark.parametrize("probe", PROBES)
def test_a_damaged_probe(made: Path, pipe: StableDiffusionPipeline, probe: dict[str, object]) -> None:
    edit(made, probe=probe)
    assert failure(made, pipe)[0] == "effect"


def test_what_is_no_adapter(tmp_path: Path, pipe: StableDiffusionPipeline) -> None:
    with pytest.raises(BadInput, match="not an adapter folder"):
        verify_adapter(tmp_path, pipe)


def test_a_base_by_name_and_one_in_half_precision(made: Path, tmp_path: Path) -> None:
    tiny_pipeline().save_pretrained(tmp_path / "base")
    assert verify_adapter(made, tmp_path / "base", device="cpu").failure is None
    verdict = verify_adapter(made, tiny_pipeline().to(torch.bfloat16))
    assert verdict.failure is None
    assert "half precision" in verdict.checks[3].skipped


def test_probe_is_the_relative_change_of_noise(pipe: StableDiffusionPipeline, made: Path) -> None:
    from piu_lora.adapter import load_adapter, unload

    name = load_adapter(pipe, made)
    values = measure_probe(pipe, lambda: adapters_disabled(pipe.unet))
    again = measure_probe(pipe, lambda: adapters_disabled(pipe.unet))
    other = measure_probe(pipe, lambda: adapters_disabled(pipe.unet), seed=1)
    unload(pipe, [name])
    assert np.array_equal(values, again)
    assert not np.array_equal(values, other)
    assert (values > 0).all()
    facts = probe_facts(values)
    assert compare_probe(facts, values) == ""
    assert "the receipt states" in compare_probe(facts, values * 1.1)
    assert torch.isfinite(torch.tensor(facts["values"])).all()
