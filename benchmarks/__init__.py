"""Reproducible measurements of this service, side by side with what a user would pick instead.

    make bench          everything, into benchmarks/results
    make bench-quick    the same in minutes, to see that it works: its numbers mean little

Each part measures and writes `results/<part>.json`; `report` reads those and writes Markdown and plots. Nothing that
is reported is written down anywhere else.

Whatever is compared is measured interleaved, in rounds, in one run: one sample of each, then the next of each. A
machine that slows down for a minute then slows all of them, and ratios hold where absolute numbers wander. See
README.md for the rules of fairness.
"""
