"""Encoders of batches in a process: our engines and their alternatives.

All have the same weights and the same batches, each in a process of its own (`benchmarks.worker`).
"""
