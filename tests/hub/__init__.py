"""A Hugging Face Hub on the loopback interface, for tests that must not reach the outside."""

from tests.hub.server import LoopbackHub

__all__ = ["REPO", "TOKEN", "LoopbackHub"]

TOKEN = "hf_averysecrettokenthatnobodymaysee"
REPO = "tester/forgotten"
