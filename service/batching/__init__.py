"""From single sequences to batches.

queue      who waits, in which order, and who is refused          pure
cost       how long a batch of a given shape takes                pure
planner    which of the waiting sequences share a batch           pure
batcher    awaits, runs, answers                                  asyncio and one thread per engine
"""
