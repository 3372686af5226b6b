"""Encodes whole files of texts or ids with a model; the extra `bulk` installs pyarrow for it."""
