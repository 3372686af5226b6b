"""Presets: what there is, where it comes from, and its tokenizer. Knows nothing of Keras."""
