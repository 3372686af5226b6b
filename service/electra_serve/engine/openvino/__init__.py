"""The OpenVINO engine: the fast path on CPUs. Nothing in this package imports Keras or TensorFlow.

graph       draws `ElectraBackbone` from a preset's weights, in operations that OpenVINO fuses
layers      the layers it is drawn with
compile     graph → compiled for this machine's CPU, in a precision
engine      runs it: `electra_serve.engine.base.Engine`
artifact    graph → a folder that `serve` starts from, and back

Importing `openvino` reports to its makers over the network, from a process that it forks, unless its telemetry is not
to be found. This file is imported before any that imports it, and sees to that: a service that holds gRPC must not
fork, and nobody who deploys one expects it to call out.

It also turns off the cache that oneDNN, which OpenVINO computes with, has for all models of a process: OpenVINO has one
for each model, which goes when the model goes (decision 21).
"""

import os
import sys
from typing import Final

UNWANTED: Final = ("openvino_telemetry", "openvino.tools.ovc")
"""Telemetry, and the converter of other libraries' models, a third of the import's time: OpenVINO does without both."""

os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "0")

for _name in UNWANTED:
    sys.modules.setdefault(_name, None)  # type: ignore[arg-type]  # None is what makes an import fail
