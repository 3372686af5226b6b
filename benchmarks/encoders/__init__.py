"""Everything that encodes a batch in a process: our engines, and what a user would pick instead.

All run the same weights and are given the same batches, each in a process of its own (`benchmarks.worker`).
"""
