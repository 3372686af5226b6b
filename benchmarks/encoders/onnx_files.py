"""The model as ONNX files: exported from transformers', fused by onnxruntime's own optimizer, and quantized."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, Final

from benchmarks.apart import apart
from benchmarks.encoders.torch import load_torch
from benchmarks.sizes import config_of
from benchmarks.weights import CACHE

INPUTS: Final = ("input_ids", "token_type_ids", "attention_mask")
OUTPUTS: Final = ("sequence_output", "pooled_output")
OPSET: Final = 17


def onnx_file(size: str, dtype: str) -> Path:
    """The fused graph in `float32`, or dynamically quantized to `int8`; made at the first call."""
    path = CACHE / size / "onnx" / f"{dtype}.onnx"
    if not path.parent.is_dir():
        apart(_write_onnx, size, path.parent)
    return path


def _write_onnx(size: str, folder: Path) -> None:
    unfinished = folder.with_name(f"{folder.name}.unfinished")
    unfinished.mkdir(parents=True, exist_ok=True)
    exported = unfinished / "exported.onnx"
    _export(size, exported)
    _fuse(size, exported, unfinished / "float32.onnx")
    _quantize(unfinished / "float32.onnx", unfinished / "int8.onnx")
    exported.unlink()
    unfinished.replace(folder)


def _export(size: str, path: Path) -> None:
    """Eager attention, which is the form that the optimizer knows how to fuse."""
    import torch

    model, pooler = load_torch(size, attention="eager")

    class WithPooler(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model
            self.pooler = pooler

        def forward(self, input_ids: Any, token_type_ids: Any, attention_mask: Any) -> tuple[Any, Any]:
            found = self.model(input_ids=input_ids, token_type_ids=token_type_ids, attention_mask=attention_mask)
            hidden = found.last_hidden_state
            return hidden, torch.tanh(self.pooler(hidden[:, 0]))

    example = torch.ones(2, 8, dtype=torch.int64)
    axes = {name: {0: "rows", 1: "length"} for name in (*INPUTS, OUTPUTS[0])} | {OUTPUTS[1]: {0: "rows"}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's advice on its successor, whose graph the optimizer cannot fuse
        torch.onnx.export(
            WithPooler().eval(),
            (example, example, example),
            path,
            dynamo=False,
            input_names=list(INPUTS),
            output_names=list(OUTPUTS),
            dynamic_axes=axes,
            opset_version=OPSET,
        )


def _fuse(size: str, source: Path, destination: Path) -> None:
    from onnxruntime.transformers import optimizer

    config = config_of(size)
    fused = optimizer.optimize_model(
        str(source), model_type="bert", num_heads=config.num_heads, hidden_size=config.hidden_dim
    )
    found = fused.get_fused_operator_statistics()
    if found["Attention"] != config.num_layers:
        raise RuntimeError(f"onnxruntime must fuse {config.num_layers} attentions, as it can; it fused {found}")
    fused.save_model_to_file(str(destination))


def _quantize(source: Path, destination: Path) -> None:
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    untyped = {"DefaultTensorType": onnx.TensorProto.FLOAT}  # of the results of its own fused operators
    quantize_dynamic(source, destination, per_channel=True, weight_type=QuantType.QInt8, extra_options=untyped)
