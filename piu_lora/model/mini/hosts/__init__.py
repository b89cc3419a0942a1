"""Hosts of the embedded base that need weights: an LCM-LoRA, a ControlNet, an expression adapter."""
