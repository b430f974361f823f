"""Measuring this machine: python -m mm.perf. Both sides of a comparison in one run, in alternation; medians."""
