"""The admin API over a fake administration: requests, responses and keys."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog
from fastapi import FastAPI
from fastapi.openapi.models import OpenAPI
from jsonschema import Draft202012Validator
from structlog.testing import CapturingLogger

from electra_serve.api.rest.admin.app import create_admin_app
from electra_serve.api.rest.admin.endpoints import AdminEndpoints
from electra_serve.api.security.api_keys import KeyRing
from electra_serve.api.security.authentication import Authenticator
from electra_serve.batching.flight_recorder import BatchRecord, FlightRecorder
from electra_serve.errors import Conflict, ModelLoadFailed, ModelNotFound, ServiceError
from electra_serve.serving.manager import Operation
from electra_serve.serving.model_info import Change, ModelState, ModelStatus
from electra_serve.settings.schema import ModelSettings, RestSettings
from tests.fakes import in_flight_batch
from tests.unit.api.rest.conftest import connect

KEY = "0123456789abcdef"
HEADERS = {"x-api-key": KEY}
MODELS = "/admin/v1/models"
BATCHES = "/admin/v1/flight-recorder"
CURRENT = ModelSettings.model_validate({"preset": "./v1", "name": "one", "dtype": "bfloat16", "sha256": "0" * 64})


@dataclass
class FakeAdministration:
    """Records requested operations, and begins operations with a scripted end.

    Attributes:
        asked: Each operation, with its settings or name.
        rejection: Error to raise instead of beginning.
        failure: Outcome of operations.
        gate: Event that operations wait for.
        current: Settings of model one.
    """

    asked: list[tuple[str, ModelSettings | str]] = field(default_factory=list)
    rejection: ServiceError | None = None
    failure: ServiceError | None = None
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    current: ModelSettings = CURRENT

    def __post_init__(self) -> None:
        self.gate.set()

    def statuses(self) -> tuple[ModelStatus, ...]:
        return (self.status("one"), ModelStatus("two", "./no", ModelState.FAILED, reason="no such folder"))

    def batches(self) -> dict[str, tuple[BatchRecord, ...]]:
        recorder = FlightRecorder(1)
        recorder.add(in_flight_batch())
        return {"one": recorder.records()}

    def status(self, name: str) -> ModelStatus:
        if name == "none":
            raise ModelNotFound("model must be one of one, two", field="model")
        change = None if self.gate.is_set() else Change.RELOAD
        return ModelStatus(name, CURRENT.preset, ModelState.READY, change=change)

    def settings(self, name: str) -> ModelSettings:
        self.status(name)
        return self.current

    def load(self, settings: ModelSettings) -> Operation:
        return self._begin("load", settings)

    def reload(self, settings: ModelSettings) -> Operation:
        return self._begin("reload", settings)

    def unload(self, name: str) -> Operation:
        return self._begin("unload", name)

    def _begin(self, change: str, what: ModelSettings | str) -> Operation:
        if self.rejection is not None:
            raise self.rejection
        self.asked.append((change, what))

        async def work() -> ServiceError | None:
            await self.gate.wait()
            return self.failure

        return Operation(asyncio.create_task(work()))


@dataclass
class Admin:
    """The application, with everything that it was made of."""

    keys_file: Path
    fake: FakeAdministration = field(default_factory=FakeAdministration)
    lines: CapturingLogger = field(default_factory=CapturingLogger)

    def app(self) -> FastAPI:
        log = structlog.wrap_logger(self.lines, [], structlog.make_filtering_bound_logger("debug"))
        authenticator = Authenticator(KeyRing(self.keys_file, log))
        return create_admin_app(AdminEndpoints(self.fake, RestSettings(), authenticator, log), keyed=True)

    @property
    def logged(self) -> list[dict[str, Any]]:
        return [call.kwargs for call in self.lines.calls]


@pytest.fixture
async def admin(tmp_path: Path) -> Admin:
    keys_file = tmp_path / "keys"
    keys_file.write_text(f"deploy:{KEY}\n")
    return Admin(keys_file)


@pytest.fixture
async def client(admin: Admin) -> AsyncIterator[httpx.AsyncClient]:
    async with connect(admin.app()) as connected:
        connected.headers.update(HEADERS)
        yield connected


async def test_models_are_listed_with_what_ails_them(client: httpx.AsyncClient) -> None:
    one, two = (await client.get(MODELS)).json()["models"]
    assert (one["name"], one["state"], one["change"], one["reason"]) == ("one", "ready", None, "")
    assert (two["name"], two["state"], two["change"], two["reason"]) == ("two", "failed", None, "no such folder")
    assert (await client.get(f"{MODELS}/one")).json() == one
    assert (await client.get(f"{MODELS}/none")).status_code == 404


async def test_a_load_gets_its_response_at_its_end(client: httpx.AsyncClient, admin: Admin) -> None:
    reply = await client.post(MODELS, json={"preset": "hf://org/my model@main", "limits": {"max_sequences": 3}})
    assert (reply.status_code, reply.json()["state"]) == (201, "ready")
    assert reply.headers["location"] == f"{MODELS}/my%20model"
    ((change, settings),) = admin.fake.asked
    assert isinstance(settings, ModelSettings)
    assert (change, settings.name, settings.limits and settings.limits.max_sequences) == ("load", "my model", 3)


async def test_a_reload_without_a_body_changes_nothing(client: httpx.AsyncClient, admin: Admin) -> None:
    reply = await client.post(f"{MODELS}/one/reload")
    assert (reply.status_code, reply.json()["name"]) == (200, "one")
    assert admin.fake.asked == [("reload", CURRENT)]


async def test_a_reload_changes_what_its_body_names(client: httpx.AsyncClient, admin: Admin) -> None:
    reply = await client.post(f"{MODELS}/one/reload", json={"preset": "./v2", "sha256": ""})
    assert reply.status_code == 200
    assert admin.fake.asked == [("reload", CURRENT.model_copy(update={"preset": "./v2", "sha256": ""}))]


@pytest.mark.parametrize(
    ("changes", "limits", "batching"),
    [
        ({}, {"max_sequences": 3}, {"max_batch_tokens": 64}),
        ({"limits": {"max_timeout_s": 2.0}}, {"max_sequences": 3, "max_timeout_s": 2.0}, {"max_batch_tokens": 64}),
        ({"limits": {"max_sequences": None}}, {}, {"max_batch_tokens": 64}),
        ({"limits": None, "batching": {"recorded_batches": 1}}, None, {"max_batch_tokens": 64, "recorded_batches": 1}),
    ],
)
async def test_a_reload_changes_limits_field_by_field(
    client: httpx.AsyncClient, admin: Admin, changes: object, limits: object, batching: object
) -> None:
    admin.fake.current = ModelSettings.model_validate(
        {"preset": "./v1", "name": "one", "limits": {"max_sequences": 3}, "batching": {"max_batch_tokens": 64}}
    )
    assert (await client.post(f"{MODELS}/one/reload", json=changes)).status_code == 200
    ((_, settings),) = admin.fake.asked
    assert isinstance(settings, ModelSettings)
    assert (settings.limits and settings.limits.model_dump(exclude_unset=True)) == limits
    assert (settings.batching and settings.batching.model_dump(exclude_unset=True)) == batching


async def test_a_reload_takes_null_for_the_default(client: httpx.AsyncClient, admin: Admin) -> None:
    assert (await client.post(f"{MODELS}/one/reload", json={"sha256": None, "dtype": None})).status_code == 200
    ((_, settings),) = admin.fake.asked
    assert isinstance(settings, ModelSettings)
    assert (settings.preset, settings.name, settings.sha256, settings.dtype) == ("./v1", "one", "", "auto")


@pytest.mark.parametrize("field", ["preset", "name"])
async def test_a_reload_needs_preset_and_name(client: httpx.AsyncClient, admin: Admin, field: str) -> None:
    reply = await client.post(f"{MODELS}/one/reload", json={field: None})
    assert (reply.status_code, reply.json()["field"]) == (422, field)
    assert admin.fake.asked == []


async def test_an_unload_leaves_no_description(client: httpx.AsyncClient, admin: Admin) -> None:
    reply = await client.delete(f"{MODELS}/a/b")
    assert (reply.status_code, reply.content) == (204, b"")
    assert admin.fake.asked == [("unload", "a/b")]


@pytest.mark.parametrize(("method", "path"), [("POST", f"{MODELS}/one/reload"), ("DELETE", f"{MODELS}/one")])
async def test_a_client_that_does_not_wait_gets_the_state(
    client: httpx.AsyncClient, admin: Admin, method: str, path: str
) -> None:
    admin.fake.gate.clear()
    reply = await client.request(method, path, params={"wait_s": 0})
    assert (reply.status_code, reply.json()["change"]) == (202, "reload")
    admin.fake.gate.set()


@pytest.mark.parametrize("wait_s", ["-1", "3601", "nan", "soon"])
async def test_a_wait_is_bounded(client: httpx.AsyncClient, admin: Admin, wait_s: str) -> None:
    reply = await client.post(f"{MODELS}/one/reload", params={"wait_s": wait_s})
    assert (reply.status_code, reply.json()["code"]) == (400, "malformed_request")
    assert admin.fake.asked == []


async def test_a_change_that_comes_to_nothing_says_why(client: httpx.AsyncClient, admin: Admin) -> None:
    admin.fake.failure = ModelLoadFailed("./v1: its weights are cut short")
    reply = await client.post(f"{MODELS}/one/reload")
    assert (reply.status_code, reply.json()["code"]) == (422, "model_load_failed")
    assert reply.json()["detail"] == "./v1: its weights are cut short"
    assert admin.logged[-1]["code"] == "model_load_failed"


async def test_a_change_that_may_not_begin_says_why(client: httpx.AsyncClient, admin: Admin) -> None:
    admin.fake.rejection = Conflict("model one has another change under way: reload")
    reply = await client.delete(f"{MODELS}/one")
    assert (reply.status_code, reply.json()["code"]) == (409, "conflict")


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ([], 400, "must be a JSON object"),
        ({"preset": "a", "shade": "turquoise"}, 400, "the fields are preset, name"),
        ({"preset": "a", "limits": {"shade": 1}}, 400, "received an unknown one, or one within them"),
        ({}, 422, "preset must be given"),
        ({"preset": "a", "dtype": "float8"}, 422, "dtype must be one of 'auto', 'float32'"),
        ({"preset": "a", "limits": {"max_sequences": 0}}, 422, "limits.max_sequences must be at least 1"),
        ({"preset": "a", "replicas": True}, 422, "replicas must not be true or false"),
        ({"preset": ""}, 422, "preset must not be empty"),
        ({"preset": 5}, 422, "preset must be text"),
        ({"preset": "/"}, 422, "name must be 1 to 128 printable"),
        ({"preset": "a", "name": "a\nb"}, 422, "name must be 1 to 128 printable"),
        ({"preset": "a", "name": "../x"}, 422, "name must have no part that is empty"),
        ({"preset": "a", "name": "a/"}, 422, "name must have no part that is empty"),
        ({"preset": "a", "name": "x" * 129}, 422, "name must be 1 to 128 printable"),
        ({"preset": "a", "aliases": ["b", "../x"]}, 422, "aliases.1 must have no part that is empty"),
        ({"preset": "a", "aliases": ["a"]}, 422, "aliases and name must all differ"),
    ],
)
async def test_settings_that_are_none_are_rejected(
    client: httpx.AsyncClient, admin: Admin, body: object, status: int, said: str
) -> None:
    reply = await client.post(MODELS, json=body)
    assert reply.status_code == status
    assert said in reply.json()["detail"]
    assert "turquoise" not in reply.text
    assert admin.fake.asked == []


@pytest.mark.parametrize("path", [MODELS, f"{MODELS}/one/reload"])
@pytest.mark.parametrize(
    ("body", "key"),
    [(b'{"preset": "a", "preset": "b"}', "preset"), (b'{"preset": "a", "limits": {"x": 1, "x": 1}}', "x")],
)
async def test_a_key_that_occurs_twice_is_rejected(
    client: httpx.AsyncClient, admin: Admin, path: str, body: bytes, key: str
) -> None:
    reply = await client.post(path, content=body, headers={"content-type": "application/json"})
    assert (reply.status_code, reply.json()["code"]) == (400, "malformed_request")
    assert f"{key!r} must occur once" in reply.json()["detail"]
    assert admin.fake.asked == []


async def test_a_reload_keeps_the_name(client: httpx.AsyncClient, admin: Admin) -> None:
    reply = await client.post(f"{MODELS}/one/reload", json={"name": "two"})
    assert (reply.status_code, reply.json()["field"]) == (422, "name")
    assert (await client.post(f"{MODELS}/one/reload", json={"name": "one"})).status_code == 200


async def test_a_large_body_is_rejected(client: httpx.AsyncClient) -> None:
    response = await client.post(MODELS, content=b"[" * 16_385)
    assert response.status_code == 413


async def test_a_body_is_json(client: httpx.AsyncClient) -> None:
    assert (await client.post(MODELS, content=b"{}", headers={"content-type": "text/plain"})).status_code == 415
    assert (await client.post(MODELS, content=b'{"preset": "./v1"}')).status_code == 201  # of no type
    assert (await client.post(f"{MODELS}/one/reload", content=b"preset=a")).status_code == 400


@pytest.mark.parametrize("headers", [{}, {"x-api-key": "fedcba9876543210"}, {"authorization": "Basic YTpi"}])
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", MODELS), ("GET", f"{MODELS}/one"), ("POST", MODELS), ("POST", f"{MODELS}/one/reload"),
        ("DELETE", f"{MODELS}/one"),
    ],
)  # fmt: skip
async def test_nothing_is_shown_or_done_without_a_key(
    admin: Admin, method: str, path: str, headers: dict[str, str]
) -> None:
    async with connect(admin.app()) as stranger:
        reply = await stranger.request(method, path, headers=headers)
    assert (reply.status_code, reply.json()["code"]) == (401, "unauthenticated")
    assert admin.fake.asked == []
    assert (admin.logged[-1]["code"], admin.logged[-1]["client"]) == ("unauthenticated", "")


async def test_the_log_says_who_did_what(client: httpx.AsyncClient, admin: Admin) -> None:
    await client.post(MODELS, json={"preset": "./v2", "name": "two"}, headers={"x-request-id": "order-7"})
    assert admin.logged == [
        {
            "event": "admin request", "method": "POST /admin/v1/models", "model": "two", "client": "deploy",
            "code": "ok", "request_id": "order-7",
        }
    ]  # fmt: skip


async def test_the_last_batches_are_listed(client: httpx.AsyncClient) -> None:
    [one] = (await client.get(BATCHES)).json()["models"]
    assert one["model"] == "one"
    [batch] = one["batches"]
    assert (batch["sequences"], batch["rows"], batch["length"]) == (2, 2, 64)
    assert (batch["outputs"], batch["outcome"]) == (["mean_output"], "running")


async def test_the_document_describes_it(admin: Admin, client: httpx.AsyncClient) -> None:
    document = (await client.get("/openapi.json")).json()
    OpenAPI.model_validate(document)
    for schema in document["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)
    assert set(document["paths"]) == {MODELS, f"{MODELS}/{{name}}", f"{MODELS}/{{name}}/reload", BATCHES}
    for item in document["paths"].values():
        for operation in item.values():
            assert operation["security"]
            assert "401" in operation["responses"]
    assert {"201", "202", "409", "422"} <= document["paths"][MODELS]["post"]["responses"].keys()
    statuses = (await client.get(MODELS)).json()
    reference = {"components": document["components"], "$ref": "#/components/schemas/StatusesAnswer"}
    Draft202012Validator(reference).validate(statuses)
    assert statuses["models"][0].keys() <= document["components"]["schemas"]["ModelStatus"]["properties"].keys()


async def test_a_body_may_begin_with_a_byte_order_mark(client: httpx.AsyncClient) -> None:
    reply = await client.post(MODELS, content=b'\xef\xbb\xbf{"preset": "./v1", "name": "another"}')
    assert (reply.status_code, reply.json().get("name")) == (201, "another")


async def test_half_a_surrogate_pair_makes_no_name(client: httpx.AsyncClient) -> None:
    reply = await client.post(MODELS, content=b'{"preset": "./v1", "name": "\\ud800"}')
    assert (reply.status_code, reply.json()["code"]) == (400, "malformed_request")


@pytest.mark.parametrize("path", [MODELS, f"{MODELS}/one", BATCHES, "/openapi.json"])
async def test_head_is_get_without_a_body(client: httpx.AsyncClient, path: str) -> None:
    get, head = await client.get(path), await client.head(path)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == get.headers["content-length"]


async def test_a_path_names_all_of_its_methods(client: httpx.AsyncClient) -> None:
    rejection = await client.put(MODELS)
    assert (rejection.status_code, rejection.headers["allow"]) == (405, "GET, HEAD, POST")


@pytest.mark.parametrize("second", [KEY, "another-0123456789"])
async def test_a_repeated_key_is_rejected(admin: Admin, second: str) -> None:
    async with connect(admin.app()) as client:
        lines = (("x-api-key", KEY), ("x-api-key", second))
        assert (await client.get(MODELS, headers=lines)).status_code == 401
