"""`compiler: auto` depends on device and dtype."""

from __future__ import annotations

from itertools import product
from typing import get_args

import pytest

from electra_serve.engine.keras.backend import DTYPES
from electra_serve.engine.keras.tensorflow import COMPILERS, choose_compiler
from electra_serve.settings.schema import ModelSettings


def test_the_table_is_complete() -> None:
    assert set(COMPILERS) == set(product(("cpu", "gpu"), DTYPES))


@pytest.mark.parametrize("device", ["cpu", "gpu:0", "gpu:3"])
def test_what_is_asked_for_wins(device: str) -> None:
    assert choose_compiler("graph", device, "bfloat16") == "graph"
    assert choose_compiler("xla", device, "bfloat16") == "xla"
    assert choose_compiler("auto", device, "bfloat16") == ("graph" if device == "cpu" else "xla")


def test_every_dtype_of_keras_is_in_the_settings() -> None:
    assert set(DTYPES) <= set(get_args(ModelSettings.model_fields["dtype"].annotation))
