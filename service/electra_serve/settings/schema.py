"""All settings, as one frozen tree.

Each field has three sources: `rest.port` is the flag `--rest.port`, the variable `ELECTRA_REST__PORT`, and `port:`
under `rest:` in the YAML file. Flags override variables, which override the file and the defaults.
An unknown key is an error in each.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final, Literal, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from electra_serve.settings.model_names import check_model_name
from electra_serve.settings.unique_keys import InvalidText, parse_json

ENV_PREFIX: Final = "ELECTRA_"
_VERSION: Final = re.compile(r"/[0-9]+$")
"""Version at the end of a Kaggle handle."""

Port = Annotated[int, Field(ge=0, le=65535)]
Seconds = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _reject_booleans(cls, values: object) -> object:
        """Rejects booleans for numbers: pydantic reads them as 1 and 0, and YAML reads `yes` and `no` as booleans."""
        given = values if isinstance(values, Mapping) else {}
        for name, field in cls.model_fields.items():
            booleans = bool in (field.annotation, *get_args(field.annotation))
            if not booleans and isinstance(given.get(name), bool):
                raise ValueError(f"{name} must not be true or false; got {str(given[name]).lower()}")
        return values


_ORIGIN: Final = re.compile(r"\*|[a-z][a-z0-9+.-]*://([a-z0-9._-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?")
_DEFAULT_PORT: Final = re.compile(r"http://.*:80|https://.*:443")


def _check_origin(origin: str) -> str:
    """Rejects origins that no browser sends."""
    if not _ORIGIN.fullmatch(origin) or _DEFAULT_PORT.fullmatch(origin):
        raise PydanticCustomError(
            "origin", "must be * or scheme://host[:port] in lower case, without a path and without the default port"
        )
    return origin


def _origins(value: object) -> object:
    """Splits text of flags and variables at commas; accepts JSON too."""
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("["):
        try:
            return parse_json(value)
        except InvalidText as error:
            raise PydanticCustomError("json", "must be a list, as JSON: {reason}", {"reason": str(error)}) from error
    return [part.strip() for part in value.split(",")] if value.strip() else []


class RestSettings(_Section):
    """HTTP server."""

    host: str = "127.0.0.1"
    """Address to listen on; `0.0.0.0` for every interface, as containers need."""
    port: Port = 8080
    """TCP port; 0 for a free one."""
    max_body_bytes: Count = 2 * 2**20
    """Largest request body. 256 rows of 512 ids with segments and mask are about 1.6 MB of JSON."""
    max_answer_bytes: Count = 64 * 2**20
    """Largest response, estimated before it is computed: a number takes 12 bytes as text, 5.4 as base64."""
    max_head_bytes: Count = 32 * 2**10
    """Largest request head: request line and headers."""
    max_connections: Count = 4096
    """Most connections, TLS handshakes included; a few kB each, some 50 kB with TLS. One more closes an idle connection
    of the address with the most idle ones. If none is idle, it gets 503, except for probes. Lowered at start, together
    with `grpc.max_connections`, if the process may not open as many files."""
    body_timeout_s: Annotated[float, Field(gt=0)] = 10.0
    """Seconds for a client to send its request head, and then its body. Too low rejects slow links; too high delays
    closing sockets, and a shutdown."""
    send_timeout_s: Annotated[float, Field(gt=0)] = 30.0
    """Seconds that a client may take to receive a response, plus one second for each megabyte. Then its connection is
    closed."""
    cors_origins: Annotated[
        tuple[Annotated[str, AfterValidator(_check_origin)], ...], NoDecode, BeforeValidator(_origins)
    ] = ()
    """Origins of web pages whose scripts may call REST (CORS), such as `https://app.example`; separated by commas, `*`
    for any. Default: none."""
    playground: bool = True
    """Serve a page to try the service at `GET /`, and an interactive API reference at `GET /docs`."""


class ApiSettings(_Section):
    """APIs of other servers, for clients that speak these; on the REST port."""

    openai: bool = True
    """Serve `POST /v1/embeddings`, as OpenAI does."""
    rerank: bool = True
    """Serve `/rerank`, `/v1/rerank`, `/v2/rerank` and `/score`, as Cohere, Jina and vLLM do."""
    tei: bool = True
    """Serve `/embed`, `/predict`, `/info` and other routes of Text Embeddings Inference."""
    oip: bool = True
    """Serve the Open Inference Protocol, as Triton and KServe do: `/v2`, and `inference.GRPCInferenceService`."""
    tei_model: str = ""
    """Model of these routes, whose requests name none; default: the only one that is served."""
    max_inputs: Count = 2048
    """Most texts of one embedding request. They are queued in slices, so a large request does not fill the queue."""
    max_documents: Count = 1000
    """Most documents of one rerank request, also in slices."""
    max_body_bytes: Count = 8 * 2**20
    """Largest body of these requests."""


class GrpcSettings(_Section):
    """gRPC server."""

    host: str = "127.0.0.1"
    """Address to listen on; `0.0.0.0` for every interface."""
    port: Port = 50051
    """TCP port; 0 for a free one."""
    max_request_bytes: Count = 4 * 2**20
    """Largest request message. 256 rows of 512 ids with segments and mask are about 1.6 MB. Parsing a hostile message
    of empty tensors can take 60 times as much memory."""
    max_connections: Count = 4096
    """Most connections, TLS handshakes included; further ones close at once. If more than half of them are open, idle
    ones of the address with the most idle ones close."""
    max_message_bytes: Count = 64 * 2**20
    """Largest response message. Those with `sequence_output` are large: 32 rows of 512 positions, 768 wide, are
    50 MB."""
    receive_timeout_s: Annotated[float, Field(gt=0)] = 10.0
    """Seconds to receive the message of a unary call, and each request of reflection. Too low rejects slow links; too
    high lets stalled clients hold a share of `transit.max_bytes`."""
    max_stream_requests: Count = 64
    """Requests of one stream that are processed at a time; the next is read after a response."""
    send_timeout_s: Annotated[float, Field(gt=0)] = 30.0
    """Seconds that a client may take to receive a response, plus one second for each megabyte. Then the call ends."""


class TransitSettings(_Section):
    """Bytes in transit of both transports."""

    max_bytes: Annotated[int, Field(ge=2**20)] = 192 * 2**20
    """Most bytes of requests being received, decoded requests, and unsent responses. A client that holds some may hold
    at most four times the free bytes. Over the limit, requests are rejected with `overloaded` before their body is
    read. More admits more large requests at a time, and takes as much memory. At least twice the largest request of
    either transport."""


class SecuritySettings(_Section):
    """Authentication and TLS. Probes, metrics and gRPC's health need no credentials."""

    api_keys_file: str = ""
    """File of the API keys that requests must have, one per line, as `key` or `name:key`; reloaded when it changes. The
    name is the client in fair queueing. Default: no key is required."""
    tls_certificate: str = ""
    """PEM file of the certificate chain of both transports, their own certificate first; reloaded when it changes.
    Default: no TLS."""
    tls_key: str = ""
    """PEM file of the certificate's private key, not encrypted."""
    tls_client_ca: str = ""
    """PEM file of the authorities whose certificates clients must have (mTLS). Without one, gRPC accepts no connection;
    REST serves probes and metrics, and responds 401 otherwise. Default: clients need none."""

    @model_validator(mode="after")
    def _check(self) -> SecuritySettings:
        if bool(self.tls_certificate) != bool(self.tls_key):
            raise ValueError("tls_certificate and tls_key must be set together; got one of them")
        if self.tls_client_ca and not self.tls_certificate:
            raise ValueError("tls_client_ca needs tls_certificate and tls_key")
        return self


class AdminSettings(_Section):
    """Admin API, which loads, reloads and unloads models at run time."""

    host: str = "127.0.0.1"
    """Address to listen on; `0.0.0.0` for every interface."""
    port: Port | None = None
    """TCP port of the admin API, with TLS if `security` sets it; 0 for a free one. Default: no admin API."""
    keys_file: str = ""
    """File of the keys that admin requests must have, like `security.api_keys_file`. Required if `port` is set."""
    without_keys: bool = False
    """Allows unauthenticated admin requests: anyone who reaches the port can load and unload models."""

    @model_validator(mode="after")
    def _check(self) -> AdminSettings:
        if self.port is not None and bool(self.keys_file) == self.without_keys:
            raise ValueError("admin.port needs either admin.keys_file or admin.without_keys; got both or neither")
        return self


class MetricsSettings(_Section):
    """Metrics for Prometheus."""

    host: str = "127.0.0.1"
    """Address to listen on if `port` is set; `0.0.0.0` for every interface."""
    port: Port | None = None
    """TCP port for `/metrics`, `/livez` and `/readyz`, without TLS, until the process ends; 0 for a free one. REST then
    serves only the two probes. Default: REST serves all three."""


class LimitSettings(_Section):
    """Limits of one request."""

    max_sequences: Count = 256
    """Most sequences in one request; more are rejected with 413 / RESOURCE_EXHAUSTED."""
    max_text_characters: Count = 100_000
    """Most characters of one text."""
    max_request_characters: Count = 1_000_000
    """Most characters of all texts of one request. An English character takes 0.3 microseconds, others up to 5.
    Requests to embed, rerank, predict and tokenize have several slices, each with this limit."""
    max_timeout_s: Annotated[float, Field(gt=0)] = 60.0
    """Seconds after which any request is aborted; longer timeouts of clients are cut to it."""


class TokenizationSettings(_Section):
    """Queue of long texts, shared by all models."""

    max_queue_characters: Count = 2_000_000
    """Most queued characters: one to two seconds of English, four to eight of the most expensive characters. A client
    with queued text may hold at most four times the free capacity. More hides overload behind latency; less rejects
    bursts. At least `limits.max_request_characters`."""


class BatchingSettings(_Section):
    """Queue and batches."""

    max_queue_sequences: Count = 2048
    """Most queued sequences. More hides overload behind latency; less rejects bursts."""
    max_queue_tokens: Count = 262_144
    """Most queued positions; the lower of both limits applies."""
    max_batch_tokens: Count = 8192
    """Most positions of a batch of several sequences, padding included. Limits the memory of a batch and its responses.
    More fills large GPUs; 1 runs each sequence alone."""
    target_batch_s: Annotated[float, Field(gt=0)] = 0.2
    """Most seconds of a batch of several sequences, by the timings of the start. Requests that arrive while a batch
    runs wait for its end. Less starts urgent and short sequences sooner; more spreads the fixed cost of a batch over
    more sequences. No effect on small models or GPUs, whose batches take less."""
    max_window_sequences: Count = 128
    """Queued sequences that the planner considers for a batch. More packs tighter, and costs planning time: two
    microseconds each up to a few hundred, and more beyond."""
    hang_timeout_s: Annotated[float, Field(gt=0)] = 30.0
    """Seconds after which a stalled engine has failed: queued requests are rejected, and the process ends for the
    orchestrator to restart it. An engine is stalled, and the process not ready, when its batch takes some seconds more
    than estimated. Less recovers sooner from a device that hangs; more survives a machine that pauses."""
    recorded_batches: Count = 256
    """Batches in the flight recorder: shapes, times and outcomes without contents, half a kilobyte each."""


def _one_or_several(value: object) -> object:
    return (value,) if isinstance(value, str) else value


ModelName = Annotated[str, AfterValidator(check_model_name)]


class EmbeddingSettings(_Section):
    """Overrides of the embedding description in a model's files."""

    pooling: Literal["mean", "cls"] | None = None
    """`mean` over the unmasked positions, or `cls`, the first one. Default: as the model's files say, or `mean`."""
    normalize: bool | None = None
    """Scale vectors to unit length. Default: as the model's files say, or false."""
    dimensions: tuple[Count, ...] = ()
    """Lengths to which clients of `/v1/embeddings` and `/embed` may cut vectors, for models that were trained for it
    (Matryoshka). Default: none."""
    truncate: bool = True
    """Truncate long texts in embedding APIs of other servers, where clients expect it; false rejects them."""
    token_ids: Literal["reject", "model"] = "reject"  # noqa: S105  # no password
    """Lists of ids in `/v1/embeddings` and `/embed`. `model` takes them as this model's; ids of another vocabulary
    would give meaningless vectors."""


class ModelSettings(_Section):
    """One model to serve. A string is short for `{preset: …}`."""

    preset: Annotated[str, Field(min_length=1)]
    """A built-in id, `kaggle://org/model/keras/variant[/version]`, `hf://org/repo[@revision]`, or a folder: a KerasHub
    preset, a transformers checkpoint or a compiled artifact."""
    name: ModelName = ""
    """Name in requests; default: the last part of `preset`, without a version or revision."""
    aliases: Annotated[tuple[ModelName, ...], BeforeValidator(_one_or_several)] = ()
    """Other names in requests, such as one that a client has built in. Responses, metrics and logs use `name`."""
    sha256: Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")] = ""
    """Digest of the only accepted files, as `electra-serve presets show` prints it. Default: any."""
    engine: Literal["auto", "jax", "openvino", "tensorflow"] = "auto"
    """Engine. `auto` uses the fastest that is installed: on a GPU jax, then tensorflow; on a CPU openvino, then
    tensorflow."""
    compiler: Literal["auto", "graph", "xla"] = "auto"
    """Compiler of the tensorflow engine. `graph` accepts any shape and starts in seconds. `xla` compiles each batch
    shape at each start, which takes a minute; on CPUs float32 then takes about 15 % less CPU time, bfloat16 more.
    `auto`: `graph` on CPUs, `xla` on GPUs. The jax engine always uses XLA."""
    dtype: Literal["auto", "float32", "bfloat16", "float16", "int8"] = "auto"
    """Type of the computation. The 16-bit types are less exact, and faster if the hardware supports them. int8 is for
    CPUs without bfloat16, on the openvino engine. It rounds weights when the preset is loaded or compiled, and
    activations at run time. With `auto`, artifacts keep the type that they were compiled for; other presets use
    float32."""
    device: Annotated[str, Field(pattern=r"^(auto|cpu|gpu(:\d+)?)$")] = "auto"
    """`auto` (a GPU if there is one), `cpu`, `gpu` or `gpu:N`."""
    replicas: Annotated[int, Field(ge=0)] = 0
    """Engines that share the model's queue; 0 chooses. There is then one openvino engine for each core of the process,
    of more threads if there are many cores; of other engines one. Unless `threads` is set, one more openvino engine
    with all cores runs lone requests. On GPUs, replica i uses the i-th GPU from `device`."""
    threads: Annotated[int, Field(ge=0)] = 0
    """Threads of each engine on a CPU. 0: all cores, shared by the replicas; from eight cores on, one is left to the
    servers. TensorFlow has one pool per process, sized by the first model: others need the same number, or 0. JAX needs
    0."""
    load_weights: bool = True
    """False: random weights for the preset's architecture, for load tests; needs no files."""
    head: Literal["auto", "none"] = "auto"
    """`auto` serves the head of the preset, if it has one, and rejects a preset with a head that cannot be served.
    `none` serves the encoder alone."""
    embedding: EmbeddingSettings | None = None
    """Computation of the output `embedding`, if it differs from the model's sentence-transformers files."""
    limits: LimitSettings | None = None
    """This model's own `limits`; other fields are those of the common `limits`."""
    batching: BatchingSettings | None = None
    """This model's own `batching`; other fields are those of the common `batching`."""

    @model_validator(mode="before")
    @classmethod
    def _name_from_preset(cls, values: object) -> object:
        if isinstance(values, Mapping) and not values.get("name") and isinstance(values.get("preset"), str):
            return {**values, "name": default_name(values["preset"])}
        return values

    @model_validator(mode="after")
    def _check(self) -> ModelSettings:
        if len(set(self.names)) != len(self.names):
            raise ValueError("aliases and name must all differ; got one twice")
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """Name and aliases."""
        return self.name, *self.aliases

    def limits_over(self, common: LimitSettings) -> LimitSettings:
        """Returns `common`, overridden by this model's own limits."""
        return common if self.limits is None else LimitSettings.model_validate(_overlaid(common, self.limits))

    def batching_over(self, common: BatchingSettings) -> BatchingSettings:
        """Returns `common`, overridden by this model's own fields."""
        return common if self.batching is None else BatchingSettings.model_validate(_overlaid(common, self.batching))


def _overlaid(common: _Section, own: _Section) -> dict[str, object]:
    return {**common.model_dump(), **own.model_dump(exclude_unset=True)}


def default_name(preset: str) -> str:
    """Returns the default name of a model.

    Example:
        >>> default_name("./models/mine"), default_name("hf://org/repo@main")
        ('mine', 'repo')
        >>> default_name("kaggle://org/model/keras/variant/2")
        'variant'
    """
    scheme, separator, rest = preset.partition("://")
    if not separator:
        return Path(preset).name
    return _VERSION.sub("", rest).rpartition("/")[2] if scheme == "kaggle" else Path(rest.partition("@")[0]).name


def model_entries(value: object) -> list[object]:
    """Splits a value of `models` into its entries: a list, a mapping, or text as in flags and variables.

    Raises:
        PydanticCustomError: It is none of these.

    Example:
        >>> model_entries("electra_demo, ./mine"), model_entries('{"preset": "./a,b"}')
        (['electra_demo', './mine'], [{'preset': './a,b'}])
    """
    if isinstance(value, str):
        value = _parsed(value)
    if isinstance(value, Mapping):
        return [value]
    if not isinstance(value, (list, tuple)):
        raise PydanticCustomError("models_form", _MODELS_FORM)
    return list(value)


_MODELS_FORM: Final = "must be presets separated by commas, or a list of presets and mappings"


def _parsed(text: str) -> object:
    if text.lstrip().startswith(("{", "[")):
        try:
            return parse_json(text)
        except InvalidText as error:
            raise PydanticCustomError("json", _MODELS_FORM + ", as JSON: {reason}", {"reason": str(error)}) from error
    entries = [part.strip() for part in text.split(",")]
    if not all(entries) or any(entry.startswith(("{", "[")) for entry in entries):
        raise PydanticCustomError("models_form", _MODELS_FORM)
    return entries


def _model_from_string(value: object) -> object:
    if isinstance(value, str):
        return {"preset": value}
    if not isinstance(value, (Mapping, ModelSettings)):
        raise PydanticCustomError("model_form", "must be a preset or a mapping with one")
    return value


class HubSettings(_Section):
    """Fetching of presets."""

    cache_dir: str = ""
    """Folder of links to fetched files and of their manifests, and of the hub clients' caches. Default:
    `electra-serve/presets` in `$XDG_CACHE_HOME` or `~/.cache`, while the clients' caches stay where they are by
    default. Required for fetching if the user has no home directory."""
    prefer: Literal["kaggle", "hf"] = "kaggle"
    """Hub that built-in ids are fetched from; the other one is used if it fails."""
    offline: bool = False
    """Use only cached presets. `HF_HUB_OFFLINE=1` does the same for both hubs."""
    timeout_s: Annotated[float, Field(gt=0)] = 3600.0
    """Most seconds to fetch one preset, all attempts included. The largest has 1.3 GB."""
    stall_timeout_s: Annotated[float, Field(gt=0)] = 60.0
    """Seconds without a byte after which an attempt is aborted. Too low aborts slow hubs; too high waits for dead
    ones."""
    attempts: Count = 4
    """Most attempts to fetch one preset."""
    max_bytes: Count = 8 * 2**30
    """Most bytes fetched for one preset."""


class LifecycleSettings(_Section):
    """Start and stop of the process."""

    drain_delay_s: Seconds = 0.0
    """Seconds from SIGTERM, when the process becomes not ready, until connections are rejected. On Kubernetes, the time
    that endpoints, balancers and DNS take to remove the pod (10)."""
    drain_timeout_s: Annotated[float, Field(ge=1)] = 30.0
    """Seconds for accepted requests to finish after that; at least 1, since idle servers take a moment to close, too.
    Keep `drain_delay_s` + this below the pod's terminationGracePeriodSeconds."""


class LogSettings(_Section):
    """Log on standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """Least severe level that is written."""
    format: Literal["auto", "json", "console"] = "auto"
    """`json` for machines, `console` for people, `auto` for console on a terminal and JSON elsewhere."""
    requests: bool = True
    """Log a line at level info for each request."""


class TracingSettings(_Section):
    """Spans of requests and batches."""

    enabled: bool = False
    """Export spans by OTLP over gRPC; needs the extra `tracing`. OpenTelemetry's own variables set the endpoint and the
    sampling: `OTEL_EXPORTER_OTLP_ENDPOINT`, `OTEL_TRACES_SAMPLER`. Each recorded request takes a part of a
    millisecond."""


class Settings(BaseSettings):
    """All settings.

    Raises:
        pydantic.ValidationError: A value is out of range, a key is unknown, or two values contradict each other.
    """

    model_config = SettingsConfigDict(
        extra="forbid",
        frozen=True,
        env_prefix=ENV_PREFIX,
        env_nested_delimiter="__",
        use_attribute_docstrings=True,
        nested_model_default_partial_update=True,
    )

    models: Annotated[
        tuple[Annotated[ModelSettings, BeforeValidator(_model_from_string)], ...],
        NoDecode,
        BeforeValidator(model_entries),
    ] = (ModelSettings(preset="electra_demo"),)
    """Models to serve: presets, or mappings with the fields below. Flag and variable accept presets separated by
    commas, or JSON; the flag may be repeated."""
    rest: RestSettings = RestSettings()
    apis: ApiSettings = ApiSettings()
    grpc: GrpcSettings = GrpcSettings()
    security: SecuritySettings = SecuritySettings()
    admin: AdminSettings = AdminSettings()
    metrics: MetricsSettings = MetricsSettings()
    transit: TransitSettings = TransitSettings()
    limits: LimitSettings = LimitSettings()
    tokenization: TokenizationSettings = TokenizationSettings()
    batching: BatchingSettings = BatchingSettings()
    hub: HubSettings = HubSettings()
    lifecycle: LifecycleSettings = LifecycleSettings()
    log: LogSettings = LogSettings()
    tracing: TracingSettings = TracingSettings()

    @model_validator(mode="after")
    def _check(self) -> Settings:
        names = Counter(name for model in self.models for name in model.names)
        if not names or names.total() != len(names):
            twice = ", ".join(name for name, times in names.items() if times > 1)
            raise ValueError(
                "models must have at least one model, and unique names and aliases; "
                + (f"got {twice} more than once" if names else "got none")
            )
        if self.apis.tei and self.apis.tei_model not in {"", *names} and self.admin.port is None:
            raise ValueError(
                f"apis.tei_model must be one of {', '.join(names)}, since no admin API loads others; "
                f"got {self.apis.tei_model}"
            )
        largest = max(self.rest.max_body_bytes, self.apis.max_body_bytes, self.grpc.max_request_bytes)
        if self.transit.max_bytes < 2 * largest:
            raise ValueError(
                f"transit.max_bytes must be at least {2 * largest}, twice the largest request; "
                f"got {self.transit.max_bytes}"
            )
        most_characters = max(model.limits_over(self.limits).max_request_characters for model in self.models)
        if self.tokenization.max_queue_characters < most_characters:
            raise ValueError(
                f"tokenization.max_queue_characters must be at least limits.max_request_characters "
                f"({most_characters}); got {self.tokenization.max_queue_characters}"
            )
        for model in self.models:
            try:
                check_admissible(model.limits_over(self.limits), model.batching_over(self.batching))
            except ValueError as error:
                raise ValueError(f"model {model.name}: {error}") from error
        return self

    @property
    def max_sequences(self) -> int:
        """Largest `max_sequences` of all models."""
        return max(model.limits_over(self.limits).max_sequences for model in self.models)


def check_admissible(limits: LimitSettings, batching: BatchingSettings) -> None:
    """Raises `ValueError` if the largest request would exceed the queue."""
    if limits.max_sequences > batching.max_queue_sequences:
        raise ValueError(
            f"limits.max_sequences ({limits.max_sequences}) must not exceed batching.max_queue_sequences "
            f"({batching.max_queue_sequences}): such a request could never be admitted"
        )
