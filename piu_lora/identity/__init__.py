"""Who: embeddings, banks, splits and anchors."""

from piu_lora.identity.anchor import Anchor, choose_anchor
from piu_lora.identity.bank import BankRows, IdentityBank, RecognizerId
from piu_lora.identity.dlib_reader import DLIB, DlibReader
from piu_lora.identity.embedding import centroid, dirichlet_mixtures, normalize, synthetic_neighbours
from piu_lora.identity.face_quality import FaceQuality
from piu_lora.identity.faces import FaceReader
from piu_lora.identity.gather import Gathered, PhotoReader, Rejected, gather
from piu_lora.identity.people_list import read_list
from piu_lora.identity.recognizer import Recognizer
from piu_lora.identity.source import ResolvedIdentity, resolve_identity
from piu_lora.identity.split import Split, split_embeddings, split_identities
from piu_lora.identity.verification import Threshold, far_threshold, far_thresholds

__all__ = [
    "DLIB",
    "Anchor",
    "BankRows",
    "DlibReader",
    "FaceQuality",
    "FaceReader",
    "Gathered",
    "IdentityBank",
    "PhotoReader",
    "Recognizer",
    "RecognizerId",
    "Rejected",
    "ResolvedIdentity",
    "Split",
    "Threshold",
    "centroid",
    "choose_anchor",
    "dirichlet_mixtures",
    "far_threshold",
    "far_thresholds",
    "gather",
    "normalize",
    "read_list",
    "resolve_identity",
    "split_embeddings",
    "split_identities",
    "synthetic_neighbours",
]
