"""KerasHub behind LitServe: `python -m benchmarks.contenders.litserve_service --port P`.

Up to 32 requests are batched and padded to the longest, as in LitServe's guide. The backbone is one traced function,
which is faster than `predict`. orjson renders the responses, which is faster than LitServe's own way.
"""

from __future__ import annotations

from typing import Final

import litserve
from starlette.responses import Response

from benchmarks.contenders.app import port_flag
from benchmarks.contenders.wire import PATH, Asked, encode, read, render
from benchmarks.encoders.keras_hub import KerasHubEncoder, build_function
from electra_serve.tensors import Outputs, RowOutput

SIZE: Final = "small"
MAX_ROWS: Final = 32
TIMEOUT_S: Final = 0.005

Answer = tuple[list[RowOutput], Outputs]


class ElectraAPI(litserve.LitAPI):
    """LitServe's hooks, in its worker's process."""

    def setup(self, device: str) -> None:
        """Loads the model and traces it."""
        del device
        self._encoder: KerasHubEncoder = build_function(SIZE)
        asked = read({"token_ids": [[101, 102]], "outputs": ["pooled_output"]})
        encode(self._encoder, asked.rows, asked.outputs)

    def decode_request(self, request) -> Asked:  # type: ignore[no-untyped-def]  # LitServe acts on an annotation
        """Reads the rows of a request's JSON."""
        return read(request)

    def batch(self, inputs: list[Asked]) -> list[Asked]:
        """Returns the requests that LitServe has batched."""
        return inputs

    def predict(self, inputs: list[Asked]) -> list[Answer]:
        """Runs the rows of all requests, at most `MAX_ROWS` in one batch."""
        outputs = frozenset(output for asked in inputs for output in asked.outputs)
        rows = [row for asked in inputs for row in asked.rows]
        batches = [rows[start : start + MAX_ROWS] for start in range(0, len(rows), MAX_ROWS)]
        answers = (answer for batch in batches for answer in encode(self._encoder, batch, outputs))
        return [([next(answers) for _ in asked.rows], asked.outputs) for asked in inputs]

    def unbatch(self, output: list[Answer]) -> list[Answer]:
        """Returns a response for each request."""
        return output

    def encode_response(self, output: Answer) -> Response:
        """Writes a response's JSON."""
        return Response(render(*output), media_type="application/json")


def main() -> None:
    """Serves until a signal comes."""
    port = port_flag()
    api = ElectraAPI(max_batch_size=MAX_ROWS, batch_timeout=TIMEOUT_S, api_path=PATH)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1, healthcheck_path="/readyz")
    server.run(host="127.0.0.1", port=port, log_level="warning", generate_client_file=False, access_log=False)


if __name__ == "__main__":
    main()
