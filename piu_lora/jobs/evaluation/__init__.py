"""Generate, score and verify: the evidence of one adapter."""
