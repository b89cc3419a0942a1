"""The settings of gate-encoder."""

from typing import Self

from pydantic import Field, model_validator

from piu_lora.settings import Amount, Count, ManyStrings, Positive, Settings, Share, out_of_range

__all__ = ["GateConfig"]


class GateConfig(Settings, section="gate"):
    """The gates: where they stand, how steep they are, and on whom they are fitted."""

    decides: int = Field(
        0, description="layer of the text encoder that tells the person, at the identity token"
    )
    layer: int = Field(
        -1, description="layer that writes the anchor, at every token; negative numbers count from the last"
    )
    rank: Count = Field(12, description="neurons that write, for each person, and one more")
    templates: Share = Field(
        0.85, description="share of conditions under other prompts than the family's own; 0: its own alone"
    )
    prompts: Count = Field(1024, description="of these, how many different ones")
    eta: Amount = Field(0.25, description="how far beyond the anchor")
    scale: Positive = Field(60.0, description="slope of a deciding pre-activation, for one unit of cosine")
    flag: Positive = Field(
        2.0, description="size of the mark that the deciding layer leaves, beside the stream's"
    )
    low: float = Field(
        0.0,
        ge=-1,
        lt=1,
        description="cosine with the known centroid from which the gate opens; 0: by the nearest real person",
    )
    high: float = Field(
        0.0,
        ge=-1,
        le=1,
        description="cosine from which it is open; 0: a ramp above gate.low, but within the person's reach",
    )
    missed: float = Field(
        0.02, ge=0, lt=1, description="share of the person's photographs that may lie below gate.high"
    )
    clearance: float = Field(
        -0.01,
        ge=-1,
        le=1,
        description="of gate.low above the nearest real person; below 0, the very nearest are touched",
    )
    variations: Count = Field(512, description="photographs that the person might have")
    written: Count = Field(2048, description="conditions of theirs that the writing neurons are fitted on")
    retained: Count = Field(2048, description="embeddings of the bank that the cached statistics rest on")
    checked: Count = Field(2048, description="embeddings of everybody else that are read one by one")
    near: Count = Field(128, description="embeddings of real people nearest to each person")
    own_weight: Amount = Field(1.0, description="of the person's conditions, beside everybody else's 1")
    near_weight: Amount = Field(0.5, description="of the nearest people's")
    ridge: Positive = Field(1e-4, description="as a share of the mean diagonal")
    occupied: ManyStrings = Field(
        (), description="neurons that other adapters use, LAYER.NEURON, as the gates of their receipts"
    )
    avoided: ManyStrings = Field(
        (), description="neurons that are taken last; forget names those of the ledger's other adapters"
    )

    @model_validator(mode="after")
    def _opens(self) -> Self:
        if self.high and self.high <= self.low:
            raise out_of_range("gate.high", self.high, f"0, or a cosine above gate.low ({self.low})")
        return self
