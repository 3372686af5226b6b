"""What a user would pick instead, as services: each takes the request that ours takes, and answers as ours does.

    litserve_service   KerasHub behind LitServe: batches of up to 32, padded to the longest
    onnx_batching      onnxruntime with dynamic batching: up to 32 in arrival order, padded to the longest
    onnx_rows          onnxruntime, each row by itself, on a pool: no padding, and no batch

Each is what a competent user would write in a day, with its best simple settings: a traced graph, onnxruntime's fused
one, every core used, a lean HTTP layer and a fast JSON library.
"""
