"""Engines that run the Keras model: TensorFlow and JAX."""
