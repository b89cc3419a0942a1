"""Arc2Face (arXiv 2403.11641): Stable Diffusion 1.5 conditioned on ArcFace embeddings."""

from piu_lora.model.family import BaseFamily, register

ARC2FACE = register(
    BaseFamily(
        name="arc2face",
        label="Arc2Face",
        embedding_width=512,
        # One condition of CLIP ViT-L/14 costs 13 GFLOP: what keeps a person under a minute on two cores
        # (benchmarks/closed_shape.py).
        presets={"": {"closed": {"retained": 1024, "near": 128, "mixtures": 8}}},
        # Samplers and batches as they are used on a base of this size; not measured.
        audit={"steps": 25, "batch": 8, "relearn_lr": 1e-4, "reidentify_people": 1024},
    )
)
