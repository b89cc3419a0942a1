"""The official PIU recipe, the yardstick of these benchmarks; it is one of the baselines of the package."""

from piu_lora.unlearn.baselines.piu_dense import (
    BLOCKS,
    Batch,
    dense_loss,
    dense_step,
    draw_batch,
    frozen_copy,
    open_attention,
    teacher_targets,
    train_dense,
)

__all__ = [
    "BLOCKS",
    "Batch",
    "dense_loss",
    "dense_step",
    "draw_batch",
    "frozen_copy",
    "open_attention",
    "teacher_targets",
    "train_dense",
]
