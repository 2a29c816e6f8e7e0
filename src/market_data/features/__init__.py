"""Shelf 3: what is computed from rows; add a function and it is found."""
