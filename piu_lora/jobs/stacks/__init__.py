"""Several adapters at once: check, merge, fuse."""
