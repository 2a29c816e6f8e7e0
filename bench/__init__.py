"""Benchmarks: `python -m bench [module …]` measures what the project says about its own speed."""
