"""The process: wires all parts together, starts them and stops them."""
