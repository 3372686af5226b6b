"""Parts of the Open Inference Protocol that REST and gRPC share."""
