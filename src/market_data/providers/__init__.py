"""Shelf 1: one file or folder per source of market data; add a file and it is found."""
