"""Make, import, describe and export banks of identities."""
