"""Reproducible measurements of this service and of its alternatives.

    make bench          everything, into benchmarks/results
    make bench-quick    the same in minutes, to check that it works: its numbers mean little

Each part writes `results/<part>.json`, and `report` makes Markdown and plots of these files alone.

Compared systems are sampled in interleaved rounds of one run: one sample of each, then the next of each. A slow minute
of the machine then affects all, and ratios hold even if absolute numbers do not. README.md has the rules of fairness.
"""
