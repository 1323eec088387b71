"""Benchmarks: one file for each claim. `make bench` runs them all and writes `benchmarks/results.md`."""
