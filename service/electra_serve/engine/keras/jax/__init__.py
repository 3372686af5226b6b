"""The JAX engine, for GPUs first: Keras' JAX backend, compiled ahead of time for each batch shape.

attention   fused attention, verified on the device before it is used
engine      compiles and runs: `electra_serve.engine.base.Engine`
build       devices and weights → engines
"""
