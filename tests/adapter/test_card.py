"""The model card: metadata that the Hub understands, and what a reader must be told."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard

from piu_lora.adapter import BaseRef, Change, Factors, Receipt
from piu_lora.adapter.card import model_card

ISM = {
    "before": 0.8,
    "after": 0.2,
    "ratio": 0.25,
    "ratio_interval": [0.2, 0.3],
    "after_interval": [0.15, 0.25],
}
RECEIPT = Receipt(
    BaseRef("arc2face", "arc2face", "0" * 64),
    "piu",
    {"seed": 42, "train": {"steps": 400}},
    evaluation={
        "recognizers": {
            "conditioning": {"ism": {"forget": ISM, "random": {**ISM, "ratio": None, "ratio_interval": None}}}
        }
    },
)
FACTORS = Factors(torch.ones(4, 3), torch.ones(5, 4))
UNET: Change = {"unet.mid_block.to_k": FACTORS}


def card(receipt: Receipt, change: Change = UNET) -> ModelCard:
    return ModelCard(model_card(receipt, change))


@pytest.mark.parametrize(
    ("base", "on_the_hub"),
    [("arc2face", "FoivosPar/Arc2Face"), ("somebody/finetune", "somebody/finetune"), ("arc2face-mini", None)],
)
def test_metadata(base: str, on_the_hub: str | None) -> None:
    data: Any = card(replace(RECEIPT, base=replace(RECEIPT.base, id=base))).data
    assert data.base_model == on_the_hub
    assert getattr(data, "base_model_relation", None) == ("adapter" if on_the_hub else None)
    assert (data.library_name, data.pipeline_tag, data.license) == ("diffusers", "text-to-image", "mit")
    assert {"lora", "unlearning", "piu-lora"} <= set(data.tags)


def test_results_carry_their_intervals() -> None:
    data: Any = card(RECEIPT).data
    assert [result.metric_value for result in data.eval_results] == [0.2, 0.2]
    assert all("0.150 to 0.250" in result.metric_name for result in data.eval_results)
    text = card(RECEIPT).text
    assert "0.250 [0.200, 0.300]" in text
    assert "no face before" in text


def test_what_a_reader_must_be_told() -> None:
    text = card(RECEIPT).text
    for word in (
        "load_lora_weights",
        "can be left out",
        "negative adapter weight",
        "rank 4",
        "400 steps",
        "seed 42",
    ):
        assert word in text
    both = card(RECEIPT, {**UNET, "text_encoder.encoder.layers.0.mlp.fc2": FACTORS}).text
    assert "the cross-attention of the UNet and the text encoder" in both


def test_a_merged_one_says_of_how_many() -> None:
    members = [{"adapter_id": f"{i:016x}", "weight": 0.5, "weights_sha256": ""} for i in range(3)]
    text = card(replace(RECEIPT, method="refit", members=members)).text
    assert "the embeddings of 3 people" in text
    assert f"`{2:016x}` (weight 0.5)" in text
