"""Forget one person on the embedded base and look at the result.

python examples/quickstart.py [OUT] [section.key=value ...]
"""

import sys
from pathlib import Path

from piu_lora import ForgetConfig, find_family, forget, load_base


def main(out: Path, settings: list[str]) -> None:
    """Forget ``mini-0007`` and print what happened to them and to the others."""
    pipe = load_base("mini")  # a plain diffusers StableDiffusionPipeline
    config = ForgetConfig.preset(find_family("mini")).updated_from_pairs(settings)
    result = forget(identity="mini-0007", base=pipe, out=out, config=config)

    assert result.evaluation is not None
    for group, figures in result.evaluation.headline["ism"].items():
        print(f"{group:8} ISM {figures['before']:.3f} -> {figures['after']:.3f}")
    print(f"adapter: {result.path}")
    print(f"picture: {result.path / 'report' / 'before_after.png'}")

    pipe.load_lora_weights(str(result.path))  # and anybody else loads it with stock diffusers


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "first-adapter"), sys.argv[2:])
