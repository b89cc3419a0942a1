"""Run a method: the trained adapters, the closed forms, and what they cost."""
