"""From single sequences to batches.

admission       how much may wait, in all and per client                pure
queue           order of the waiting rows: priority, fairness, arrival   pure
cost_model      seconds of each batch shape                              pure
planner         packs the waiting sequences into batches                 pure
packing_search  which packings the planner tries                         pure
row_packing     sequences into rows                                      pure
row_batches     rows into batches                                        pure
worker_pool     which engine runs the next batch                         pure
coalescing      when an idle engine starts                               pure
pending         one request and its rows                                 asyncio
batcher         admits requests, awaits their results                    asyncio
dispatcher      starts batches on free workers, takes them back          asyncio
completion      delivers the rows of a finished batch                    asyncio
in_flight       rows that left the queue, and retries                    asyncio
engine_worker   runs batches                                             one thread per engine
watchdog        detects stalled and failed engines                       asyncio
flight_recorder the last batches, for logs and the admin API             pure
"""
