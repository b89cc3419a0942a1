"""The groups of people that an evaluation looks at: their names in files, and the words that people read."""

from dataclasses import dataclass
from typing import Literal

__all__ = [
    "ANCHOR",
    "DECOY",
    "FORGET",
    "GROUPS",
    "GROUP_WORDS",
    "MORE",
    "NEAREST",
    "RANDOM",
    "RETAINED",
    "UNSEEN",
    "GroupName",
    "GroupWords",
    "group_label",
]

GroupName = Literal["forget", "unseen", "random", "nearest", "anchor", "decoy"]
FORGET: GroupName = "forget"
UNSEEN: GroupName = "unseen"  # there only where photographs are given that forgetting did not see
RANDOM: GroupName = "random"
NEAREST: GroupName = "nearest"
ANCHOR: GroupName = "anchor"
DECOY: GroupName = "decoy"  # there only where an adapter has decoys
# Further pictures of the forgotten people, for rates that need many seeds; ISM and accuracies leave them out.
MORE = "more"
RETAINED: tuple[GroupName, ...] = (RANDOM, NEAREST, ANCHOR)
GROUPS: tuple[GroupName, ...] = (FORGET, *RETAINED)


@dataclass(frozen=True)
class GroupWords:
    """What people read for a group.

    Attributes:
        label: in tables and keys.
        short: at the end of a line in a chart.
        people: in a sentence, after "images of".
        row: beside a row of pictures.
    """

    label: str
    short: str
    people: str
    row: str


GROUP_WORDS: dict[str, GroupWords] = {
    FORGET: GroupWords("forgotten", "forgotten", "the forgotten person", "forgotten"),
    UNSEEN: GroupWords(
        "forgotten, unseen", "unseen", "the forgotten person's unseen photographs", "unseen photographs"
    ),
    RANDOM: GroupWords("retained, random", "random", "retained people", "retained people"),
    NEAREST: GroupWords("retained, nearest", "nearest", "the nearest neighbours", "near neighbours"),
    ANCHOR: GroupWords("anchor", "anchor", "the anchor", "anchor"),
    DECOY: GroupWords("decoys", "decoys", "the decoys", "decoys"),
}


def group_label(name: str) -> str:
    """What tables call a group; a name that is not known here stays as it is."""
    return GROUP_WORDS[name].label if name in GROUP_WORDS else name
