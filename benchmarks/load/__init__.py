"""Load generator of the benchmarks and of tests/load.

    clients       one request over REST or gRPC, and its outcome; closed loops of checked requests
    closed_loop   a lean closed loop that counts and times; `python -m benchmarks.load`
    open_loop     Poisson arrivals from a process of its own

Tests import benchmarks and never the reverse: benchmarks run without pytest and from other checkouts.
"""
