"""Alternatives as services, with the requests and responses of ours.

    litserve_service   KerasHub behind LitServe: batches of up to 32, padded to the longest
    onnx_batching      onnxruntime with dynamic batching: up to 32 in arrival order, padded to the longest
    onnx_rows          onnxruntime row by row on a pool: no padding and no batch

Each is a competent user's work of a day, with its best simple settings. It has a traced or fused graph, every core, a
lean HTTP layer and a fast JSON library.
"""
