"""Convert, list and publish adapter folders."""
