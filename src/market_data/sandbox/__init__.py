"""Recorded market history served on loopback through the sources' own wire protocols."""
