"""The service with an engine that sleeps instead of computing, for load tests and for the front end's own cost.

script    speed of the engine, and token ids that make it fail
answers   outputs of the engine, known from the ids
engine    the engine
record    batches that reached the engine, as a file
service   `python -m benchmarks.stand_in serve …`, with the flags of `electra-serve`
"""
