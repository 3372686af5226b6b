"""Everything that encodes a batch in a process: our engines, and what a user would pick instead.

All run the same weights and are given the same batches. Each has a process of its own (`worker`): backends fight over
threads where they share one, and Keras has one backend per process.
"""
