"""TensorFlow's models share one thread pool; a different `threads` setting is an error."""

from __future__ import annotations

import pytest

from electra_serve.errors import EngineUnavailable

tf = pytest.importorskip("tensorflow")


def test_a_model_may_not_ask_for_another_size_than_the_pool_has() -> None:
    from electra_serve.engine.keras.tensorflow import _share_cores

    _share_cores(0)
    tf.config.list_logical_devices()  # creates the pool
    there = tf.config.threading.get_intra_op_parallelism_threads()
    _share_cores(0)
    _share_cores(there)
    with pytest.raises(EngineUnavailable, match=f"threads must be 0 or {there}: .*; got {there + 1}"):
        _share_cores(there + 1)
