"""Dynamic batching: from queued sequences to engine batches.

Pure policy, without clock or I/O: admission, queue, cost_model, planner, packing_search, row_packing, row_batches,
worker_pool, coalescing, flight_recorder. On the event loop: batcher, dispatcher, completion, in_flight, pending,
watchdog. On one thread per engine: engine_worker.
"""
