"""Weight files: HDF5 and safetensors, read as arrays named by KerasHub paths."""
