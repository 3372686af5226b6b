"""The OpenVINO engine, the fastest on CPUs. Nothing in this package imports Keras or TensorFlow.

This module disables OpenVINO's telemetry, which forks a process: one that uses gRPC must not fork. It also disables
oneDNN's process-wide cache, since OpenVINO has one per model, freed with the model (docs/decisions/0021).
"""

import os
import sys
from typing import Final

# telemetry, and model conversion, which takes a third of the import time; OpenVINO needs neither
UNWANTED: Final = ("openvino_telemetry", "openvino.tools.ovc")

os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "0")

for _name in UNWANTED:
    sys.modules.setdefault(_name, None)  # type: ignore[arg-type]  # None makes the import fail
