"""What we write, loaded by real releases from 2023 on: it predicts there what it predicts here."""

import json
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline

from piu_lora import convert_adapter, forget, fuse_adapters, open_members, read_adapter
from piu_lora.adapter import save_kohya
from piu_lora.config import ForgetConfig
from piu_lora.model import encode_embeddings
from piu_lora.model.older_versions import nest_encoder, write_vocabulary
from piu_lora.tensors import save_tensors
from piu_lora.unlearn import METHODS
from tests.adapter.stacks import changed, random_change, write_random
from tests.tiny import FAST, WIDTH, tiny_bank, tiny_pipeline
from tests.versions.environments import RELEASES, python_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@dataclass
class Cases:
    """A folder that another interpreter reads: files of ours, and what they must predict."""

    folder: Path
    pipe: StableDiffusionPipeline
    inputs: dict[str, torch.Tensor]
    entries: list[dict[str, Any]] = field(default_factory=list)

    @torch.no_grad()
    def add(self, name: str, pipe: StableDiffusionPipeline, **entry: str) -> None:
        """``pipe`` predicts what is expected."""
        condition = encode_embeddings(pipe.text_encoder, pipe.tokenizer, self.inputs["embeddings"])
        noise = pipe.unet(self.inputs["latents"], self.inputs["timesteps"], condition).sample
        save_tensors({"condition": condition, "noise": noise}, self.folder / f"{name}.safetensors", {})
        self.entries.append(
            {"name": name, "layout": "diffusers", "base": "base", "expected": f"{name}.safetensors", **entry}
        )
        (self.folder / "cases.json").write_text(json.dumps(self.entries))


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Cases:
    folder, pipe = tmp_path_factory.mktemp("versions"), tiny_pipeline()
    pipe.save_pretrained(folder / "base")
    nest_encoder(folder / "base" / "text_encoder")
    write_vocabulary(folder / "base" / "tokenizer")
    generator = torch.Generator().manual_seed(1)
    inputs = {
        "latents": torch.randn(2, 4, 8, 8, generator=generator),
        "embeddings": torch.nn.functional.normalize(torch.randn(2, WIDTH, generator=generator), dim=1),
        "timesteps": torch.tensor([10, 700]),
    }
    save_tensors(inputs, folder / "inputs.safetensors", {})
    cases = Cases(folder, pipe, inputs)
    cases.add("bare", pipe)
    for method in METHODS:
        _add_method(cases, method)
    _add_fused(cases)
    return cases


def _add_method(cases: Cases, method: str) -> None:
    """Its adapter folder, and the file for programs of kohya's kind."""
    config = ForgetConfig().updated_from_pairs((*FAST, f"method={method}"))
    out = cases.folder / method
    forget("person-000", tiny_pipeline(), out, bank=tiny_bank(), config=config, evaluate=False)
    change = read_adapter(out).change
    reference = changed(cases.pipe, [change], [1.0])
    cases.add(method, reference, lora=method)
    convert_adapter(out, "kohya", cases.folder / f"{method}-kohya.safetensors")
    cases.add(f"kohya-{method}", reference, lora=f"{method}-kohya.safetensors")


def _add_fused(cases: Cases) -> None:
    """A fused base in both layouts, and through the calls of the official demo with a second LoRA."""
    ours = write_random(cases.pipe, cases.folder / "random", 1, encoder=True)
    reference, members = changed(cases.pipe, [ours.change], [1.0]), open_members([ours])
    fuse_adapters(members, cases.folder / "base", cases.folder / "fused")
    cases.add("fused", reference, base="fused")
    save_kohya(random_change(cases.pipe, 2), cases.folder / "second.safetensors", title="x")
    for name, pickled in (("models", False), ("models-bin", True)):
        fuse_adapters(
            members, cases.folder / "base", cases.folder / name, layout="arc2face", pickled_encoder=pickled
        )
        assert {path.name for path in (cases.folder / name).iterdir()} == {
            "arc2face",
            "encoder",
            "fused.json",
        }
        place = {"layout": "arc2face", "base": name, "parts": "base"}
        cases.add(name, reference, **place)
        cases.add(f"demo-{name}", reference, **place, second="second.safetensors")


@pytest.mark.parametrize("release", [*RELEASES, "installed"])
def test_every_release_predicts_the_same(
    cases: Cases, release: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    here = release == "installed"
    python = Path(sys.executable) if here else python_of(release, tmp_path_factory.getbasetemp())
    script = Path(__file__).with_name("predict.py")
    peft = [] if release == "0.22" else ["peft"]
    done = subprocess.run(
        [str(python), str(script), str(cases.folder), *peft], capture_output=True, text=True, cwd=cases.folder
    )
    assert not done.returncode, done.stderr[-2000:]
    results = json.loads(done.stdout.splitlines()[-1])
    expected = {entry["name"] for entry in cases.entries if peft or "second" not in entry}
    assert results.keys() == expected
    assert not {name: pair for name, pair in results.items() if max(pair) > 1e-4}
