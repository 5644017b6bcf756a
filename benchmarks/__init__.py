"""Comparisons with other implementations, measured in one run; see docs/performance.md."""
