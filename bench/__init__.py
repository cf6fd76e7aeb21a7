"""Benchmarks of the kernels: `python -m bench`. Results that name their hardware are in bench/results."""
