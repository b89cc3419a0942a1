"""The settings that the closed forms share."""

from pydantic import Field

from piu_lora.settings import Amount, Count, Positive, Settings

__all__ = ["ClosedConfig"]


class ClosedConfig(Settings, section="closed"):
    """The ridge regressions of the closed forms; they weigh means over token positions."""

    eta: Amount = Field(0.25, description="how far beyond the anchor; less than in noise space does")
    retain_weight: Positive = Field(30.0, description="of everybody else's conditions")
    empty_weight: Amount = Field(0.05, description="of the empty prompt, beside the retained conditions' 1")
    anchor_weight: Amount = Field(0.2, description="of the anchor's own condition, which would suffer most")
    ridge: Positive = Field(1e-5, description="as a share of the mean diagonal")
    neighbours: float = Field(
        0.4, ge=0, lt=1, description="share of synthetic neighbours among the retained conditions"
    )
    mixtures: Count = Field(32, description="conditions of each forgotten person")
    drawn: str = Field(
        "mixtures",
        description="how these are drawn: mixtures of the photographs, individual ones, their centroid, or "
        "variation: photographs that the person might have, by the bank's geometry",
    )
    retained: Count = Field(4096, description="embeddings of the bank that the cached statistics rest on")
    near: Count = Field(2048, description="synthetic neighbours of the forgotten people, together")
    positions: Count = Field(16, description="token positions of a retained condition that are looked at")
    layers: int = Field(0, ge=0, description="of the text encoder, from the last; 0 edits all")
    tolerance: float = Field(1e-4, ge=0, lt=1, description="share of a layer's energy that its rank may lose")
    rank: Count = Field(64, description="the highest allowed")
