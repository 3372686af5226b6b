"""Distills `electra_demo`, the preset inside the package, from a sentence encoder."""
