"""int8: NNCF's post-training quantisation, calibrated on texts."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Iterator, Sequence

import numpy as np
import openvino as ov

from electra_serve.engine.openvino.graph import IDS, POSITIONS
from electra_serve.errors import EngineUnavailable
from electra_serve.tensors import Batch, BatchShape, Encoding


def quantize(graph: ov.Model, encodings: Sequence[Encoding]) -> ov.Model:
    """A copy of `graph` whose matrix products are int8: weights per channel, activations per tensor.

    Args:
        graph: From `draw_graph`.
        encodings: What the ranges of activations are taken from: some hundred, like what will be served.

    Raises:
        EngineUnavailable: NNCF is not installed.
    """
    try:
        import nncf  # takes seconds, and only `electra-serve compile --dtype int8` needs it
    except ImportError as error:
        raise EngineUnavailable(
            "dtype int8 needs NNCF to compile: pip install 'electra-serve[int8]'; it is not installed"
        ) from error
    logging.getLogger("nncf").setLevel(logging.WARNING)
    with contextlib.redirect_stdout(sys.stderr):  # its progress bars; what the command found is on standard output
        quantized: ov.Model = nncf.quantize(
            graph,
            nncf.Dataset(list(_inputs(encodings))),
            model_type=nncf.ModelType.TRANSFORMER,
            subset_size=len(encodings),
        )
    return quantized


def _inputs(encodings: Sequence[Encoding]) -> Iterator[dict[str, np.ndarray]]:
    for encoding in encodings:
        batch = Batch.pack([encoding], BatchShape(1, encoding.compute_length))
        yield {
            **{name: getattr(batch, name) for name in IDS},
            POSITIONS: np.array([encoding.compute_length], np.int32),
        }
