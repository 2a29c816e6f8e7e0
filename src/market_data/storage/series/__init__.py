"""Candles: every version, the present with its features, coverage, and reads of them."""
