"""Shelf 2: what makes a row acceptable; add a function and it is found."""
