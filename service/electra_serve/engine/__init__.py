"""Engines: one contract, and one implementation per backend."""
