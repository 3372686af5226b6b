"""Every knob, in one frozen tree.

A field is the same thing in three places: `rest.port` is the flag `--rest.port`, the variable
`ELECTRA_REST__PORT` and `port:` under `rest:` in the YAML file. Flags win over variables, variables over the
file, the file over the defaults. An unknown key is an error in all three.
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
"""What ends a handle on Kaggle."""

Port = Annotated[int, Field(ge=0, le=65535)]
Seconds = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _reject_booleans(cls, values: object) -> object:
        """Rejects true and false for a number: pydantic takes them for 1 and 0, and YAML `yes` and `no` for them."""
        given = values if isinstance(values, Mapping) else {}
        for name, field in cls.model_fields.items():
            booleans = bool in (field.annotation, *get_args(field.annotation))
            if not booleans and isinstance(given.get(name), bool):
                raise ValueError(f"{name} must not be true or false; got {str(given[name]).lower()}")
        return values


_ORIGIN: Final = re.compile(r"\*|[a-z][a-z0-9+.-]*://([a-z0-9._-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?")
_DEFAULT_PORT: Final = re.compile(r"http://.*:80|https://.*:443")


def _check_origin(origin: str) -> str:
    """Rejects what no browser sends, and would therefore allow nothing."""
    if not _ORIGIN.fullmatch(origin) or _DEFAULT_PORT.fullmatch(origin):
        raise PydanticCustomError(
            "origin", "must be * or scheme://host[:port] in lower case, without a path and without the default port"
        )
    return origin


def _origins(value: object) -> object:
    """Splits text, as flags and variables have it, at commas; JSON is taken too."""
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("["):
        try:
            return parse_json(value)
        except InvalidText as error:
            raise PydanticCustomError("json", "must be a list, as JSON: {reason}", {"reason": str(error)}) from error
    return [part.strip() for part in value.split(",")] if value.strip() else []


class RestSettings(_Section):
    """The HTTP server."""

    host: str = "127.0.0.1"
    """Address to listen on; `0.0.0.0` for every interface, as containers need."""
    port: Port = 8080
    """TCP port; 0 takes a free one."""
    max_body_bytes: Count = 2 * 2**20
    """Largest request body. 256 rows of 512 ids with segments and mask are about 1.6 MB of JSON."""
    max_answer_bytes: Count = 64 * 2**20
    """Largest answer, estimated before it is computed: a number takes 12 bytes as text, 5.4 as base64."""
    max_head_bytes: Count = 32 * 2**10
    """Largest request head: request line and headers."""
    max_connections: Count = 4096
    """Most connections, TLS handshakes included; a few kB each, some 50 kB with TLS. If one more comes, an idle one of
    the address that has most idle ones closes; if none is idle, the new one gets 503 except for probes. Lowered at
    start, together with `grpc.max_connections`, if the process may not open as many files."""
    body_timeout_s: Annotated[float, Field(gt=0)] = 10.0
    """Seconds a client has to send its head, and then its whole body. Too low refuses slow links, too high holds
    sockets, and a shutdown."""
    send_timeout_s: Annotated[float, Field(gt=0)] = 30.0
    """Seconds that a client may stall while it receives a response, plus one second for each megabyte; then its
    connection is closed."""
    cors_origins: Annotated[
        tuple[Annotated[str, AfterValidator(_check_origin)], ...], NoDecode, BeforeValidator(_origins)
    ] = ()
    """Origins of the web pages whose scripts may call REST (CORS), such as `https://app.example`; several with commas
    between them, `*` for any. Default: none."""


class GrpcSettings(_Section):
    """The gRPC server."""

    host: str = "127.0.0.1"
    """Address to listen on; `0.0.0.0` for every interface."""
    port: Port = 50051
    """TCP port; 0 takes a free one."""
    max_request_bytes: Count = 4 * 2**20
    """Largest request message. 256 rows of 512 ids with segments and mask are about 1.6 MB of int32. Parsing can
    take 60 times this in memory, where a hostile message is made of nothing but empty tensors."""
    max_connections: Count = 4096
    """Most connections, TLS handshakes included; further ones close at once. If more than half of it are open, idle
    ones of the address that has most idle ones close."""
    max_message_bytes: Count = 64 * 2**20
    """Largest answer message. Those with `sequence_output` are the large ones: 32 rows of 512 positions, 768
    wide, are 50 MB."""
    receive_timeout_s: Annotated[float, Field(gt=0)] = 10.0
    """Seconds for the message of a unary call to arrive, and for each request of reflection. Too low rejects slow
    links, too high lets stalled clients hold a share of `transit.max_bytes`."""
    max_stream_requests: Count = 64
    """Requests of one `EncodeStream` that are worked on at a time; the next is read when one is answered."""
    send_timeout_s: Annotated[float, Field(gt=0)] = 30.0
    """Seconds that a client may stall while it receives a response, plus one second for each megabyte; then the call
    is ended."""


class TransitSettings(_Section):
    """Bytes in transit, on both transports together."""

    max_bytes: Annotated[int, Field(ge=2**20)] = 192 * 2**20
    """Most bytes of requests being received, decoded requests, and responses not yet sent. A client that holds some may
    hold at most four times what it leaves free. Over it, requests are rejected with `overloaded` before their body is
    read. More admits more large requests at a time and takes as much memory; it must be at least twice the largest
    request of either transport."""


class SecuritySettings(_Section):
    """Who may ask, and over what. Probes, metrics and gRPC's health are open to everyone."""

    api_keys_file: str = ""
    """File of the API keys that requests must bring, one a line, as `key` or `name:key`; read again when it changes.
    The name is the client in fair queueing. Default: no key is asked for."""
    tls_certificate: str = ""
    """PEM file of the certificate that both transports show, those that signed it after it; read again when it changes.
    Default: no TLS."""
    tls_key: str = ""
    """PEM file of its private key, not encrypted."""
    tls_client_ca: str = ""
    """PEM file of the authorities whose certificates clients must show (mTLS). gRPC takes no connection without one;
    REST answers probes and metrics, and 401 otherwise. Default: clients need none."""

    @model_validator(mode="after")
    def _check(self) -> SecuritySettings:
        if bool(self.tls_certificate) != bool(self.tls_key):
            raise ValueError("tls_certificate and tls_key go together; received one of them")
        if self.tls_client_ca and not self.tls_certificate:
            raise ValueError("tls_client_ca needs tls_certificate and tls_key")
        return self


class AdminSettings(_Section):
    """The admin API, which loads, reloads and unloads models at run time. Off unless it is given a port."""

    host: str = "127.0.0.1"
    """Address to listen on; `0.0.0.0` for every interface."""
    port: Port | None = None
    """TCP port of the admin API, its own, with TLS where `security` has it; 0 takes a free one. Default: there is no
    admin API."""
    keys_file: str = ""
    """File of the keys that admin requests must bring, like `security.api_keys_file`. Needed where `port` is set."""
    without_keys: bool = False
    """Whether whoever reaches the port of the admin API may use it, that is, serve any model and take any away."""

    @model_validator(mode="after")
    def _check(self) -> AdminSettings:
        if self.port is not None and bool(self.keys_file) == self.without_keys:
            raise ValueError("admin.port needs either admin.keys_file or admin.without_keys; received both or neither")
        return self


class MetricsSettings(_Section):
    """Where Prometheus scrapes."""

    host: str = "127.0.0.1"
    """Address to listen on where `port` is set; `0.0.0.0` for every interface."""
    port: Port | None = None
    """TCP port that serves `/metrics`, `/livez` and `/readyz`, without TLS, and answers until the process ends; 0 takes
    a free one. REST then serves no `/metrics`, but both probes. Default: REST serves all three."""


class LimitSettings(_Section):
    """What one request may carry."""

    max_sequences: Count = 256
    """Most sequences in one request; more are refused with 413 / RESOURCE_EXHAUSTED."""
    max_text_characters: Count = 100_000
    """Longest text, in characters, that is handed to the tokenizer."""
    max_request_characters: Count = 1_000_000
    """Most characters in all texts of one request. English takes 0.3 microseconds each, at worst 5."""
    max_timeout_s: Annotated[float, Field(gt=0)] = 60.0
    """Seconds after which any request is given up, and the longest that a caller may ask for."""


class TokenizationSettings(_Section):
    """Long texts that wait for the tokenizer, of all models together."""

    max_queue_characters: Count = 2_000_000
    """Characters that may wait to be tokenized: one to two seconds of English, four to eight of the most expensive
    characters. A client that waits may hold at most four times what it leaves free. More hides overload behind latency,
    less sheds bursts; it must be at least `limits.max_request_characters`."""


class BatchingSettings(_Section):
    """The queue and the batches cut from it."""

    max_queue_sequences: Count = 2048
    """Sequences that may wait. More hides overload behind latency, less sheds bursts."""
    max_queue_tokens: Count = 262_144
    """Positions that may wait, whichever bound comes first."""
    max_batch_tokens: Count = 8192
    """Most positions in a batch of several sequences, padding included. Bounds the memory of a batch and its responses:
    more fills large GPUs, 1 runs each sequence by itself."""
    target_batch_s: Annotated[float, Field(gt=0)] = 0.2
    """Seconds that a batch of several sequences may take, by the timings of the start. Requests that arrive while a
    batch runs wait for its end: less lets urgent and short sequences in sooner, more spreads the fixed cost of a
    batch over more of them. Has no effect on small models or GPUs, where every batch takes less."""
    max_window_sequences: Count = 128
    """Number of waiting sequences that the planner packs batches from. More packs tighter and costs planning time, two
    microseconds each up to some hundred, and more beyond."""
    hang_timeout_s: Annotated[float, Field(gt=0)] = 30.0
    """Seconds that an engine may stay late until it is given up: what waits is refused and the process ends, for an
    orchestrator to start it anew. It is late, and the process not ready, when its batch takes some seconds more than it
    should. Less recovers sooner from a device that hangs, more outlasts a machine that does."""
    recorded_batches: Count = 256
    """Batches that the flight recorder keeps: shapes, times and outcomes, no contents. Half a kilobyte each."""


def _one_or_several(value: object) -> object:
    return (value,) if isinstance(value, str) else value


ModelName = Annotated[str, AfterValidator(check_model_name)]


class EmbeddingSettings(_Section):
    """Overrides of the embedding description in a model's files."""

    pooling: Literal["mean", "cls"] | None = None
    """`mean` over the unmasked positions, or `cls`, the first one. Default: as the model's files say, or `mean`."""
    normalize: bool | None = None
    """Whether vectors have unit length. Default: as the model's files say, or false."""


class ModelSettings(_Section):
    """One model to serve. A bare string stands for `{preset: …}`."""

    preset: Annotated[str, Field(min_length=1)]
    """A built-in id, a folder (a KerasHub preset, a transformers checkpoint or a compiled artifact),
    `kaggle://org/model/keras/variant[/version]`, or `hf://org/repo[@revision]`."""
    name: ModelName = ""
    """The name requests use; default: the last part of `preset`, without a version or revision."""
    aliases: Annotated[tuple[ModelName, ...], BeforeValidator(_one_or_several)] = ()
    """Other names that requests may use, such as one that a client has built in. Responses, metrics and logs have
    `name`."""
    sha256: Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")] = ""
    """The only files to accept: their digest, as `electra-serve presets show` prints it. Default: any."""
    engine: Literal["auto", "jax", "openvino", "tensorflow"] = "auto"
    """What computes. `auto` takes the fastest that is installed: on a GPU jax, then tensorflow; on a CPU openvino, then
    tensorflow."""
    compiler: Literal["auto", "graph", "xla"] = "auto"
    """How the tensorflow engine makes its programs. `graph` takes any shape and starts in seconds. `xla` compiles each
    batch shape at each start, which takes a minute; on CPUs float32 then takes about 15 % less CPU time, bfloat16 more.
    `auto`: `graph` on CPUs, `xla` on GPUs. The jax engine always uses XLA."""
    dtype: Literal["auto", "float32", "bfloat16", "float16", "int8"] = "auto"
    """What to compute in. The 16-bit types are faster where the hardware has them, and less exact. int8 is for CPUs
    without bfloat16, on the openvino engine: weights are rounded when the preset is loaded or compiled, activations at
    run time. `auto` is what an artifact was compiled for, and float32 for other presets."""
    device: Annotated[str, Field(pattern=r"^(auto|cpu|gpu(:\d+)?)$")] = "auto"
    """`auto` (a GPU where there is one), `cpu`, `gpu` or `gpu:N`."""
    replicas: Annotated[int, Field(ge=0)] = 0
    """Engines that share the model's queue. 0 chooses: on the openvino engine one for each core that this process may
    use, of more threads where there are many cores, and one with all cores for lone requests, unless `threads` is set;
    elsewhere one. On GPUs, replica i goes to the i-th GPU from `device`."""
    threads: Annotated[int, Field(ge=0)] = 0
    """Threads of each engine on a CPU. 0: all cores, shared by the replicas; from eight cores on, one is left to the
    servers. TensorFlow has one pool in a process, sized by the first model: others ask for the same number, or 0. JAX
    sizes its own and takes 0 only."""
    load_weights: bool = True
    """False: random weights in the preset's architecture, for load tests; needs no files."""
    embedding: EmbeddingSettings | None = None
    """Computation of the output `embedding`, if it differs from the model's sentence-transformers files."""
    limits: LimitSettings | None = None
    """This model's own `limits`. Fields that it leaves out are those of the common ones."""
    batching: BatchingSettings | None = None
    """This model's own `batching`. Fields that it leaves out are those of the common one."""

    @model_validator(mode="before")
    @classmethod
    def _name_from_preset(cls, values: object) -> object:
        if isinstance(values, Mapping) and not values.get("name") and isinstance(values.get("preset"), str):
            return {**values, "name": default_name(values["preset"])}
        return values

    @model_validator(mode="after")
    def _check(self) -> ModelSettings:
        if len(set(self.names)) != len(self.names):
            raise ValueError("aliases must differ from one another and from name; got one twice")
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """Every name that requests may use, its own first."""
        return self.name, *self.aliases

    def limits_over(self, common: LimitSettings) -> LimitSettings:
        """Returns `common` with this model's own limits in their place."""
        return common if self.limits is None else LimitSettings.model_validate(_overlaid(common, self.limits))

    def batching_over(self, common: BatchingSettings) -> BatchingSettings:
        """Returns `common` with this model's own fields in their place."""
        return common if self.batching is None else BatchingSettings.model_validate(_overlaid(common, self.batching))


def _overlaid(common: _Section, own: _Section) -> dict[str, object]:
    return {**common.model_dump(), **own.model_dump(exclude_unset=True)}


def default_name(preset: str) -> str:
    """The name of a model that is given none.

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
    """Splits what `models` may be into its entries.

    Args:
        value: A list; one mapping; or text, as flags and variables have it: a preset, several with commas between them,
            or JSON.

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


_MODELS_FORM: Final = "must be a preset, several with commas between them, or a list of presets and mappings"


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
    """Presets that are fetched."""

    cache_dir: str = ""
    """Folder where fetched presets are kept; default: `electra-serve/presets` in `$XDG_CACHE_HOME` or `~/.cache`.
    Needed for fetching if the user has no home directory."""
    prefer: Literal["kaggle", "hf"] = "kaggle"
    """Where built-in ids are fetched from first; the other hub is asked where that fails."""
    offline: bool = False
    """Whether to use only what is in `cache_dir`. `HF_HUB_OFFLINE=1` says the same, of both hubs."""
    timeout_s: Annotated[float, Field(gt=0)] = 3600.0
    """Seconds that fetching one preset may take, all attempts included. The largest has 1.3 GB."""
    stall_timeout_s: Annotated[float, Field(gt=0)] = 60.0
    """Seconds without a byte after which an attempt is given up. Too low gives up slow hubs, too high waits for dead
    ones."""
    attempts: Count = 4
    """Most attempts to fetch one preset."""
    max_bytes: Count = 8 * 2**30
    """Most bytes fetched for one preset."""


class LifecycleSettings(_Section):
    """Starting and stopping."""

    drain_delay_s: Seconds = 0.0
    """Seconds between turning readiness off and refusing connections, on SIGTERM. On Kubernetes, as long as
    endpoints take to disappear (5)."""
    drain_timeout_s: Annotated[float, Field(ge=1)] = 30.0
    """Seconds that accepted requests have to finish after that; at least 1, since servers that are idle take a moment
    to close, too. Keep `drain_delay_s` + this below the pod's terminationGracePeriodSeconds."""


class LogSettings(_Section):
    """The log, on standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """Least severe level that is written."""
    format: Literal["auto", "json", "console"] = "auto"
    """`json` for machines, `console` for people, `auto` for console on a terminal and JSON elsewhere."""
    requests: bool = True
    """Whether each request leaves a line at level info."""


class TracingSettings(_Section):
    """Spans of requests and batches."""

    enabled: bool = False
    """Whether spans are sent, by OTLP over gRPC; needs the extra `tracing`. Where to, and how many, OpenTelemetry's own
    variables say: `OTEL_EXPORTER_OTLP_ENDPOINT`, `OTEL_TRACES_SAMPLER`. Each recorded request costs a part of a
    millisecond; off costs nothing."""


class Settings(BaseSettings):
    """The whole tree.

    Raises:
        pydantic.ValidationError: A value is out of range, a key unknown, or two values contradict each other.
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
    """The models to serve: presets, or mappings with the fields below. Flag and variable take a preset, several with
    commas between them, or JSON; the flag may be repeated."""
    rest: RestSettings = RestSettings()
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
                "models must hold at least one model, each with names and aliases of its own; "
                + (f"several have {twice}" if names else "got none")
            )
        largest = max(self.rest.max_body_bytes, self.grpc.max_request_bytes)
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
        """Most sequences in one request that any model takes."""
        return max(model.limits_over(self.limits).max_sequences for model in self.models)


def check_admissible(limits: LimitSettings, batching: BatchingSettings) -> None:
    """Refuses limits that the queue's bounds contradict.

    Raises:
        ValueError: The largest request could never be admitted.
    """
    if limits.max_sequences > batching.max_queue_sequences:
        raise ValueError(
            f"limits.max_sequences ({limits.max_sequences}) must not exceed batching.max_queue_sequences "
            f"({batching.max_queue_sequences}): such a request could never be admitted"
        )
