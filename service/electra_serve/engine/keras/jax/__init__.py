"""The JAX engine, for GPUs first: Keras' JAX backend, compiled ahead of time for a grid of shapes.

attention   which attention a device computes best, tried before it is trusted
engine      compiles and runs: `electra_serve.engine.base.Engine`
build       devices and weights → engines
"""
