"""Open Inference Protocol (KServe's v2): the parts that REST and gRPC share."""
