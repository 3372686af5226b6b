"""The JAX engine, mainly for GPUs: Keras on JAX, compiled ahead of time for each batch shape."""
