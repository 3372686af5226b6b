"""Tokenizers: KerasHub presets and transformers checkpoints, each by its own files."""
