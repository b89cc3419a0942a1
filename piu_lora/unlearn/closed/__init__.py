"""Closed forms: forgetting as a ridge regression on conditions, without training and without an image."""
