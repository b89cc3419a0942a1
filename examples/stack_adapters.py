"""Several adapters in one pipeline, and one adapter out of several.

    python examples/stack_adapters.py OUT

Takes the adapters of this repository, so nothing is trained and nothing is downloaded.
"""

import sys
from pathlib import Path

import torch

from piu_lora import (
    active,
    adapters_disabled,
    generate,
    load_adapters,
    load_base,
    merge_adapters,
    open_members,
)

out = Path(sys.argv[1])
adapters = sorted((Path(__file__).parent.parent / "adapters").glob("mini-piu-*"))
pipe = load_base("mini")
load_adapters(pipe, adapters, weights=[1.0, 0.5, 0.5])
print("active:", active(pipe))

somebody = torch.nn.functional.normalize(
    torch.randn(1, 128, generator=torch.Generator().manual_seed(0)), dim=1
)
stacked = generate(pipe, somebody, [0], steps=4)
with adapters_disabled(pipe):
    bare = generate(pipe, somebody, [0], steps=4)
print(f"mean change of a face that nobody forgets: {float((stacked - bare).abs().mean()):.4f}")

merged = merge_adapters(open_members(adapters, [1.0, 0.5, 0.5]), out)
print(f"merged into {merged.path}: the largest loss of a layer is {merged.worst:.1e}")
