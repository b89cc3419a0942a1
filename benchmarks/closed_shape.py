"""The closed forms on the shape of Stable Diffusion 1.5 (CLIP ViT-L/14: 768 wide, keys of 3072, 12 layers, 77
tokens), random weights.

    python -m benchmarks.closed_shape --out benchmarks/results/closed_shape.json

Seconds and peak memory of one person once the statistics of the bank are kept, all that ``forget`` does; and
by rank: the adapter's size, and the share of the edit that the rank loses, over the inputs it was solved for.
Random weights say nothing of faces.
"""

import json
import os
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline

from benchmarks.output import parser as new_parser
from benchmarks.sd15 import build_sd15
from piu_lora import ForgetConfig, load_base
from piu_lora.identity import IdentityBank, RecognizerId, normalize
from piu_lora.jobs.request.request import ErasureRequest, open_request
from piu_lora.jobs.request.session import Session
from piu_lora.jobs.training.bank_statistics import measure_bank
from piu_lora.jobs.training.trial import tried
from piu_lora.model import find_family
from piu_lora.model.mini.untrained import text_encoder_of
from piu_lora.unlearn import ClosedConfig

RANKS = (1, 4, 8, 16, 32)


def real_shape() -> StableDiffusionPipeline:
    """Text encoder in float32, UNet in float16 (it is never run); no VAE."""
    torch.manual_seed(0)
    tokenizer = load_base("mini", device="cpu").tokenizer
    tokenizer.model_max_length = 77
    encoder = text_encoder_of(
        tokenizer, 768, 12, 12, intermediate_size=3072, vocab_size=49408, max_position_embeddings=77
    ).eval()
    with torch.device("meta"):
        unet = build_sd15().half()
    unet = unet.to_empty(device="cpu")
    for name, parameter in unet.named_parameters():
        if name.endswith(("attn2.to_k.weight", "attn2.to_v.weight")):
            torch.nn.init.normal_(parameter, std=0.03)
    scheduler = DPMSolverMultistepScheduler()
    return StableDiffusionPipeline(
        None, encoder, tokenizer, unet, scheduler, None, None, requires_safety_checker=False
    )


def people(count: int, seed: int) -> torch.Tensor:
    """(count, 512) unit vectors with the axis-wise spread of real embeddings."""
    generator = torch.Generator().manual_seed(seed)
    spread = torch.exp(-torch.arange(512) / 190)
    return normalize(torch.randn(count, 512, generator=generator) * spread)


def bank_of(count: int) -> IdentityBank:
    """``count`` people with an embedding each; the first has six."""
    rows = people(count, 1)
    rows = torch.cat([normalize(rows[:1] + 0.6 * people(6, 2)), rows[1:]])
    labels = torch.cat([torch.zeros(5, dtype=torch.long), torch.arange(count)])
    return IdentityBank(rows, labels, [f"p{number}" for number in range(count)], RecognizerId("made", ""))


def main() -> None:
    """Measure, print, write."""
    parser = new_parser(__doc__)
    parser.add_argument("--people", type=int, default=1200, help="in the bank")
    parser.add_argument("--ranks", nargs="*", type=int, default=RANKS)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    bank = bank_of(options.people)
    session = Session(real_shape(), bank)
    loaded = peak()
    peaks: list[int] = []
    with tempfile.TemporaryDirectory() as cache:
        os.environ["PIU_LORA_CACHE"] = cache
        begun = time.perf_counter()
        measure_bank(session, case_of(bank, "closed-kv"))
        once = time.perf_counter() - begun
        peaks.append(peak())
        results: dict[str, Any] = {}
        for method in ("closed-kv", "closed-encoder", "closed-both"):
            with tried(session, case_of(bank, method)) as trial:
                peaks.append(peak())
            capped = {}
            for rank in options.ranks if method == "closed-encoder" else ():
                with tried(session, case_of(bank, method, rank=rank, tolerance=0.0)) as cut:
                    capped[rank] = {"bytes": cut.stored_bytes, "lost": 1 - float(cut.facts["kept_energy"])}
            results[method] = {
                "seconds": trial.cost.seconds,
                "extra_bytes": trial.cost.peak_bytes,
                "bytes": trial.stored_bytes,
                "facts": trial.facts,
                "by_rank": capped,
            }
            print(method, results[method], flush=True)
    closed = ForgetConfig.preset(find_family("arc2face")).section_of(ClosedConfig)
    document = {
        "threads": torch.get_num_threads(),
        "people": options.people,
        "retained": closed.retained,
        "near": closed.near,
        "once_seconds": once,
        "loaded_bytes": loaded,
        "peak_bytes": max(peaks),
        "methods": results,
    }
    options.out.write_text(json.dumps(document, indent=1) + "\n")
    options.out.with_suffix(".md").write_text(table(document) + "\n")


def case_of(bank: IdentityBank, method: str, **closed: object) -> ErasureRequest:
    """The request to forget the first person."""
    config = ForgetConfig.preset(find_family("arc2face"), method).updated(
        {"closed": closed, "anchor": {"rule": "synthetic"}}
    )
    return open_request(bank.ids[0], bank, config, None)


def peak() -> int:
    """Of the process, in bytes, since it began or since ``tried`` began to measure."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def table(document: dict[str, Any]) -> str:
    """Markdown."""
    methods = document["methods"]
    note = (
        f"{document['threads']} threads, random weights; a bank of {document['people']} people, "
        f"{document['retained']} of whose embeddings are measured once ({document['once_seconds']:.0f} s); "
        f"{document['near']} synthetic neighbours. Peak of the whole process "
        f"{document['peak_bytes'] / 1e9:.2f} GB, {document['loaded_bytes'] / 1e9:.2f} GB of it libraries and "
        "text encoder (float32). Of the UNet only keys and values are read, so its other weights (1.7 GB in "
        "half precision) take no memory here."
    )
    lines = [
        "| method | seconds a person | GB on top of the base | MB stored | largest rank |",
        "|---|--:|--:|--:|--:|",
    ]
    for name, result in methods.items():
        sizes = f"{result['extra_bytes'] / 1e9:.2f} | {result['bytes'] / 1e6:.2f}"
        lines.append(f"| {name} | {result['seconds']:.0f} | {sizes} | {max(result['facts']['ranks'])} |")
    lines += ["", "| closed-encoder, rank | MB | energy lost in the worst layer |", "|--:|--:|--:|"]
    for rank, cut in methods["closed-encoder"]["by_rank"].items():
        lines.append(f"| {rank} | {cut['bytes'] / 1e6:.2f} | {cut['lost']:.2g} |")
    return "\n".join([note, "", *lines])


if __name__ == "__main__":
    main()
