"""Scripts that print the tables of the README."""
