"""Task heads in Keras, on top of an `ElectraBackbone`; they compute in float32 in every dtype policy of the encoder."""

from __future__ import annotations

from typing import Any, Final

import keras
from keras import ops

from electra_serve.model.attention import PACKAGE, Tensor
from electra_serve.model.initializers import KernelInitializer, truncated_normal
from electra_serve.model.layers import ACTIVATIONS, dense
from electra_serve.presets.config import BackboneConfig
from electra_serve.presets.heads import HeadConfig

DTYPE: Final = "float32"  # scores of close candidates differ by less than bfloat16's 8 bits


@keras.saving.register_keras_serializable(PACKAGE)
class Head(keras.layers.Layer):
    """Layers from hidden states or pooled outputs, (…, D), to logits, (…, L)."""

    def __init__(
        self,
        head: HeadConfig,
        config: BackboneConfig,
        kernel_initializer: KernelInitializer = truncated_normal,
        **kwargs: Any,
    ) -> None:
        super().__init__(dtype=DTYPE, **kwargs)
        self.head = head
        policy = self.dtype_policy
        self.dense = None
        if head.has_dense:
            activation = ACTIVATIONS[head.dense_activation(config)]
            self.dense = dense(
                config.hidden_dim, "dense", dtype=policy, kernel_initializer=kernel_initializer, activation=activation
            )
            self.dense.build((None, config.hidden_dim))
        self.output_dense = dense(len(head.labels), "output", dtype=policy, kernel_initializer=kernel_initializer)
        self.output_dense.build((None, config.hidden_dim))
        self.built = True

    def call(self, inputs: Tensor) -> Tensor:
        """Maps (R, N, D) to (R, N, L)."""
        rows, count, width = ops.shape(inputs)
        x = ops.reshape(inputs, (-1, width))  # (R·N, D)
        x = x if self.dense is None else self.dense(x)
        return ops.reshape(self.output_dense(x), (rows, count, len(self.head.labels)))

    def weights_by_path(self) -> dict[str, keras.Variable]:
        """Returns every variable by its path in `head.weights.h5`."""
        layers = {"dense": self.dense, "output": self.output_dense}
        return {
            f"head/{name}/vars/{index}": variable
            for name, layer in layers.items()
            if layer is not None
            for index, variable in enumerate(layer.weights)
        }
