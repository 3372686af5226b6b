"""From single sequences to batches.

queue      who waits, in which order, and who is refused          pure
cost       how long a batch of a given shape takes                pure
planner    which of the waiting sequences share a batch           pure
batcher    awaits requests, chooses batches and starts them       asyncio
landing    answers the rows of a batch that is back               asyncio
runner     runs batches                                           one thread per engine
watchdog   tells when an engine is late or lost                   asyncio
"""
