"""The closed forms on the shape of Stable Diffusion 1.5 (CLIP ViT-L/14: 768 wide, keys of 3072, 12 layers, 77 tokens), random weights.

    python -m benchmarks.closed_shape --out benchmarks/results/closed_shape.json

Seconds and peak memory of one person once the statistics of the bank are kept, and by rank: the adapter's size, and the share of the
edit that the rank loses, over the inputs it was solved for. Random weights say nothing of faces: this measures cost.
"""

import argparse
import json
import resource
import time
from pathlib import Path
from typing import Any

import torch
from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline
from transformers import CLIPTextConfig, CLIPTextModel

from benchmarks.step_cost import build_sd15
from piu_lora import ForgetConfig, load_base
from piu_lora.identity import normalize
from piu_lora.model import layer_inputs, second_moments
from piu_lora.unlearn import Ground, Problem, find_method, statistics_modules

RANKS = (1, 2, 4, 8, 16, 32)


def real_shape() -> StableDiffusionPipeline:
    """Text encoder in float32, UNet in float16 (it is never run); no VAE."""
    torch.manual_seed(0)
    tokenizer = load_base("mini", device="cpu").tokenizer
    tokenizer.model_max_length = 77
    encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=49408, hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12,
            max_position_embeddings=77, eos_token_id=tokenizer.eos_token_id,
        )
    ).eval()  # fmt: skip
    with torch.device("meta"):
        unet = build_sd15().half()
    unet = unet.to_empty(device="cpu")
    for name, parameter in unet.named_parameters():
        if name.endswith(("attn2.to_k.weight", "attn2.to_v.weight")):
            torch.nn.init.normal_(parameter, std=0.03)
    scheduler = DPMSolverMultistepScheduler()
    return StableDiffusionPipeline(None, encoder, tokenizer, unet, scheduler, None, None, requires_safety_checker=False)


def people(count: int, seed: int) -> torch.Tensor:
    """(count, 512) unit vectors with the axis-wise spread of real embeddings."""
    generator = torch.Generator().manual_seed(seed)
    spread = torch.exp(-torch.arange(512) / 190)
    return normalize(torch.randn(count, 512, generator=generator) * spread)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--retained", type=int, default=256, help="embeddings behind the kept statistics")
    parser.add_argument("--near", type=int, default=0, help="synthetic neighbours; those of the preset by default")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    pipe = real_shape()
    others = people(options.retained, 1)
    centre = people(1, 2)
    own = normalize(centre + 0.6 * people(6, 3))
    config = ForgetConfig.preset("arc2face")
    near = options.near or config.closed.near
    begun = time.perf_counter()
    generator = torch.Generator().manual_seed(0)
    retained = second_moments(layer_inputs(pipe, statistics_modules(pipe), others, generator, batch=16), config.closed.positions)
    once = time.perf_counter() - begun
    begun = time.perf_counter()
    left_out = people(config.closed.retained // 10, 5)  # a tenth of the bank is held out, and taken out of the statistics
    second_moments(layer_inputs(pipe, statistics_modules(pipe), left_out, generator, batch=16), config.closed.positions)
    held_out = time.perf_counter() - begun
    problem = Problem.of_one(own, people(1, 4)[0], others)
    results: dict[str, Any] = {}
    for method in ("closed-kv", "closed-encoder", "closed-both"):
        config = ForgetConfig.preset("arc2face", method).updated({"closed": {"near": near}})
        solve = find_method(method).solve
        assert solve is not None
        begun = time.perf_counter()
        solution = solve(problem, Ground(pipe, retained), config)
        seconds = time.perf_counter() - begun
        factors = list(solution.change.values())
        size = 2 * sum(each.down.numel() + each.up.numel() for each in factors)
        ranks = {}
        if method == "closed-encoder":
            for rank in RANKS:
                capped = solve(problem, Ground(pipe, retained), config.updated({"closed": {"rank": rank, "tolerance": 0.0}}))
                bytes_ = 2 * sum(each.down.numel() + each.up.numel() for each in capped.change.values())
                ranks[rank] = {"bytes": bytes_, "lost": 1 - float(capped.facts["kept_energy"])}
        results[method] = {"seconds": seconds, "bytes": size, "facts": solution.facts, "by_rank": ranks}
        print(method, f"{seconds:.0f} s", size, solution.facts, ranks, flush=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    document = {
        "threads": torch.get_num_threads(), "retained": options.retained, "near": near, "held_out_seconds": held_out,
        "once_seconds": once, "peak_bytes": peak, "methods": results,
    }  # fmt: skip
    options.out.write_text(json.dumps(document, indent=1) + "\n")
    note = (
        f"{torch.get_num_threads()} threads, random weights, UNet in fp16; {options.retained} embeddings measured once: {once:.0f} s. "
        f"{near} synthetic neighbours. Taking those held out from the statistics, {held_out:.0f} s, comes on top. Peak {peak / 1e9:.2f} GB."
    )
    lines = [
        note, "", "| method | seconds a person | MB | largest rank |", "|---|--:|--:|--:|",
        *(f"| {m} | {r['seconds']:.0f} | {r['bytes'] / 1e6:.2f} | {max(r['facts']['ranks'])} |" for m, r in results.items()), "",
        "| closed-encoder, rank | MB | energy lost in the worst layer |", "|--:|--:|--:|",
        *(f"| {k} | {v['bytes'] / 1e6:.2f} | {v['lost']:.2g} |" for k, v in results["closed-encoder"]["by_rank"].items()),
    ]  # fmt: skip
    options.out.with_suffix(".md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
