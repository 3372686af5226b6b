"""Names and aliases that need encoding, on every route of the real process with a stand-in engine, which loads fast."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

import grpc
import httpx
import pytest

from benchmarks.stand_in.script import Script
from electra_serve.proto.electra.v1 import encoder_pb2 as pb
from electra_serve.proto.electra.v1.encoder_pb2_grpc import EncoderServiceStub
from tests.integration.process import ServiceProcess, free_port
from tests.load.stand_in import stand_in

NAME: Final = "org/mödel?v=1"
NAMES: Final = (
    NAME,
    "text-embedding-3-small",
    "a b",
    "100%",
    "a%2Fb",
    "a#b&c+d;e=f:@",
    "模型",
    "a\\b",
    "...",
    "x/reload",
)
ADMIN: Final = "/admin/v1/models"


@dataclass(frozen=True, slots=True)
class Named:
    """A process whose one model has all of `NAMES`, and the URL of its admin API."""

    process: ServiceProcess
    admin: str


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Named]:
    folder, admin = tmp_path_factory.mktemp("named"), free_port()
    model = json.dumps({"preset": "electra_demo", "name": NAME, "aliases": NAMES[1:]})
    flags = (f"--models={model}", f"--admin.port={admin}", "--admin.without_keys=true")
    with stand_in(folder, Script(), *flags) as process:
        yield Named(process, f"http://127.0.0.1:{admin}")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("safe", ["", "/"], ids=["all encoded", "slashes as they are"])
def test_rest_finds_it(named: Named, name: str, safe: str) -> None:
    path = quote(name, safe=safe)
    shown = httpx.get(f"{named.process.url}/v1/models/{path}").json()
    assert (shown["name"], shown["aliases"]) == (NAME, list(NAMES[1:]))
    assert httpx.get(f"{named.admin}{ADMIN}/{path}").json()["name"] == NAME
    body = {"model": name, "text": "hi", "outputs": ["mean_output"]}
    assert httpx.post(f"{named.process.url}/v1/encode", json=body).json()["model"] == NAME


@pytest.mark.parametrize("name", NAMES)
def test_grpc_finds_it(named: Named, name: str) -> None:
    request = pb.EncodeRequest(model=name, text=pb.TextInput(texts=[pb.Text(first="hi")]), request_id="r")
    with grpc.insecure_channel(named.process.target) as channel:
        stub = EncoderServiceStub(channel)
        info = stub.GetModel(pb.GetModelRequest(name=name), timeout=10).model
        assert (info.name, tuple(info.aliases)) == (NAME, NAMES[1:])
        assert stub.Encode(request, timeout=10).model == NAME
        (reply,) = stub.EncodeStream(iter([pb.EncodeStreamRequest(request=request)]), timeout=10)
        assert reply.response.model == NAME


def test_every_name_can_be_loaded_reloaded_and_unloaded(named: Named) -> None:
    for name in NAMES:
        name = f"new {name}"
        loaded = httpx.post(f"{named.admin}{ADMIN}", json={"preset": "electra_demo", "name": name}, timeout=60)
        assert loaded.status_code == 201
        own = f"{named.admin}{loaded.headers['location']}"
        assert httpx.get(own).json()["name"] == name
        assert httpx.post(f"{named.admin}{ADMIN}/{quote(name, safe='')}/reload", timeout=60).status_code == 200
        assert httpx.delete(own, timeout=60).status_code == 204
        assert httpx.get(own).status_code == 404


def test_a_reload_by_an_alias_may_take_it_away(named: Named) -> None:
    body = {"preset": "electra_demo", "name": "brief", "aliases": ["going"]}
    assert httpx.post(f"{named.admin}{ADMIN}", json=body, timeout=60).status_code == 201
    reloaded = httpx.post(f"{named.admin}{ADMIN}/going/reload", json={"aliases": None}, timeout=60)
    assert (reloaded.status_code, reloaded.json()["name"], reloaded.json()["aliases"]) == (200, "brief", [])
    assert httpx.get(f"{named.admin}{ADMIN}/going").status_code == 404
    assert httpx.delete(f"{named.admin}{ADMIN}/brief", timeout=60).status_code == 204


def test_metrics_have_the_model_s_own_name(named: Named) -> None:
    body = {"model": "text-embedding-3-small", "text": "hi", "outputs": ["mean_output"]}
    assert httpx.post(f"{named.process.url}/v1/encode", json=body).status_code == 200
    text = httpx.get(f"{named.process.url}/metrics").text
    assert f'electra_requests_total{{code="ok",model="{NAME}",transport="rest"}}' in text
    assert "text-embedding-3-small" not in text


@pytest.mark.parametrize("taken", NAMES[:2])
def test_a_taken_name_is_a_conflict(named: Named, taken: str) -> None:
    for body in (
        {"preset": "electra_demo", "name": taken},
        {"preset": "electra_demo", "name": "z", "aliases": [taken]},
    ):
        rejected = httpx.post(f"{named.admin}{ADMIN}", json=body, timeout=60)
        assert (rejected.status_code, rejected.json()["code"]) == (409, "conflict")
