"""`apis.oip` switches the Open Inference Protocol on both ports, and keys leave its probes open."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import grpc
import httpx
import pytest
import yaml
from grpc_reflection.v1alpha import reflection_pb2

from electra_serve.presets.catalog import DEMO_ID
from electra_serve.proto.inference import open_inference_grpc_pb2 as pb
from electra_serve.settings.schema import ApiSettings
from tests.integration.deploy.manifests import DEPLOYING, config
from tests.integration.process import ROOT, ServiceProcess, start
from tests.integration.standard import reflect

SERVICE: Final = "inference.GRPCInferenceService"
KEY: Final = "3f9c0d2b7f6e4a1c8d5e"
PROBES: Final = ("/v2/health/live", "/v2/health/ready")
MODEL_PROBE: Final = f"/v2/models/{DEMO_ID}/ready"
OTHERS: Final = ("/v2", "/v2/models", f"/v2/models/{DEMO_ID}", "/v2/models/stats", f"/v2/models/{DEMO_ID}/config")
BODY: Final = {"inputs": [{"name": "token_ids", "shape": [1, 3], "datatype": "INT64", "data": [2, 5, 4]}]}


@pytest.fixture(scope="module")
def off(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    with start(tmp_path_factory.mktemp("off"), "--apis.oip=false") as process:
        process.wait_ready()
        yield process


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    folder = tmp_path_factory.mktemp("keyed")
    (folder / "keys").write_text(f"shop:{KEY}\n")
    with start(folder, f"--security.api_keys_file={folder / 'keys'}") as process:
        process.wait_ready()
        yield process


def services(process: ServiceProcess) -> set[str]:
    """Names that reflection lists."""
    with grpc.insecure_channel(process.target) as channel:
        (listed,) = reflect(channel, [reflection_pb2.ServerReflectionRequest(list_services="")])
    return {service.name for service in listed.list_services_response.service}


def status_of(process: ServiceProcess, method: str, request: bytes, *key: tuple[str, str]) -> grpc.StatusCode:
    """The status of a call."""
    with ExitStack() as stack:
        channel = stack.enter_context(grpc.insecure_channel(process.target))
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(f"/{SERVICE}/{method}")
        try:
            call(request, metadata=key, timeout=60)
        except grpc.RpcError as error:
            code: grpc.StatusCode = error.code()
            return code
    return grpc.StatusCode.OK


@pytest.mark.usefixtures("scraped_before_traffic")
def test_it_is_on_by_default(service: ServiceProcess) -> None:
    for path in (*PROBES, *OTHERS):
        assert httpx.get(f"{service.url}{path}").status_code == 200, path
    assert httpx.post(f"{service.url}/v2/models/{DEMO_ID}/infer", json=BODY).status_code == 200
    assert SERVICE in services(service)
    assert "/v2/models/{name}/infer" in httpx.get(f"{service.url}/openapi.json").json()["paths"]
    assert status_of(service, "ServerLive", b"") is grpc.StatusCode.OK


def test_off_it_leaves_nothing_on_rest(off: ServiceProcess) -> None:
    for path in (*PROBES, *OTHERS, MODEL_PROBE, "/v2/logging"):
        response = httpx.get(f"{off.url}{path}")
        assert (response.status_code, response.headers["content-type"]) == (404, "application/problem+json"), path
    assert httpx.post(f"{off.url}/v2/models/{DEMO_ID}/infer", json=BODY).status_code == 404
    paths = httpx.get(f"{off.url}/openapi.json").json()["paths"]
    assert [path for path in paths if path.startswith("/v2") and path not in {"/v2/embed", "/v2/rerank"}] == []


def test_off_it_leaves_nothing_on_grpc(off: ServiceProcess) -> None:
    assert SERVICE not in services(off)
    for method in ("ServerLive", "ServerReady", "ModelReady", "ModelInfer", "ModelMetadata"):
        assert status_of(off, method, b"") is grpc.StatusCode.UNIMPLEMENTED


def test_off_it_leaves_the_other_apis(off: ServiceProcess) -> None:
    url = f"{off.url}/v1/encode"
    assert httpx.post(url, json={"token_ids": [[2, 5, 4]], "outputs": ["cls_output"]}).status_code == 200
    assert httpx.get(f"{off.url}/v2/rerank").status_code == 405


def test_probes_need_no_key(keyed: ServiceProcess) -> None:
    for path in (*PROBES, MODEL_PROBE):
        assert httpx.get(f"{keyed.url}{path}").status_code == 200, path
    assert DEMO_ID not in httpx.get(f"{keyed.url}/v2/models/other/ready").text
    ready = pb.ModelReadyRequest(name=DEMO_ID).SerializeToString()
    for method, request in (("ServerLive", b""), ("ServerReady", b""), ("ModelReady", ready)):
        assert status_of(keyed, method, request) is grpc.StatusCode.OK


def test_everything_else_needs_a_key(keyed: ServiceProcess) -> None:
    named = {
        method: getattr(pb, f"{method}Request")(name=DEMO_ID).SerializeToString()
        for method in ("ModelMetadata", "ModelConfig", "ModelStatistics")
    }
    for path in OTHERS:
        response = httpx.get(f"{keyed.url}{path}")
        assert (response.status_code, response.json()["code"]) == (401, "unauthenticated"), path
        assert response.headers["content-type"] == "application/json"
        assert httpx.get(f"{keyed.url}{path}", headers={"x-api-key": KEY}).status_code == 200, path
    for method, request in {"ServerMetadata": b"", "RepositoryIndex": b"", **named}.items():
        assert status_of(keyed, method, request) is grpc.StatusCode.UNAUTHENTICATED, method
        assert status_of(keyed, method, request, ("x-api-key", KEY)) is grpc.StatusCode.OK, method


def test_settings_documents_and_manifests_agree() -> None:
    assert ApiSettings().oip is True
    settings = (ROOT / "docs/settings.md").read_text()
    assert "`--apis.oip`<br>`ELECTRA_APIS__OIP` | `true`" in settings
    assert "`apis.oip` switches" in (ROOT / "docs/api.md").read_text()
    for overlay in DEPLOYING:
        assert yaml.safe_load(config(overlay)).get("apis", {}).get("oip", True) is True


@pytest.mark.parametrize("path", ["docs/api.md", "docs/security.md"])
def test_the_documents_name_the_open_routes(path: str) -> None:
    text = Path(ROOT / path).read_text()
    names = (*PROBES, "/v2/models/{m}/ready", "ServerLive", "ServerReady", "ModelReady")
    assert [name for name in names if f"{name}`" not in text] == []
