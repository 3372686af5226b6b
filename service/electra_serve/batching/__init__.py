"""Dynamic batching: from queued sequences to engine batches.

The policies (admission, queue, planner, costs, packing, worker pool, coalescing) are pure: no clock, no I/O. Batcher,
dispatcher, completion and watchdog run on the event loop, and each engine worker on one thread.
"""
