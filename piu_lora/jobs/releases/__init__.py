"""Releases: one adapter for everybody who asked to be forgotten, version after version."""
