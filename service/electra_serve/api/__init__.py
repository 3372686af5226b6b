"""The transports: each turns its own messages into `EncodeRequest`s and back, and nothing else."""
