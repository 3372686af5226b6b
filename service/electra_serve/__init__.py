"""electra-serve: ELECTRA encoders behind REST and gRPC."""

__version__ = "0.1.0"
