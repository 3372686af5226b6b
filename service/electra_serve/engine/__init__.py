"""What computes: one contract, one file per backend."""
