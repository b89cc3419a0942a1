"""Who: embeddings, banks, splits and anchors."""

from piu_lora.identity.anchor import Anchor, choose_anchor
from piu_lora.identity.bank import IdentityBank, RecognizerId
from piu_lora.identity.embedding import centroid, dirichlet_mixtures, normalize, synthetic_neighbours
from piu_lora.identity.recognizer import Recognizer
from piu_lora.identity.source import Subject, resolve_identity
from piu_lora.identity.split import Split, split_identities

__all__ = [
    "Anchor",
    "IdentityBank",
    "Recognizer",
    "RecognizerId",
    "Split",
    "Subject",
    "centroid",
    "choose_anchor",
    "dirichlet_mixtures",
    "normalize",
    "resolve_identity",
    "split_identities",
    "synthetic_neighbours",
]
