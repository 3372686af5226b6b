"""Description of a model's task head: the layers on top of the encoder, and the meaning of their outputs.

    head.json         the description, in KerasHub's format and in artifacts; transformers has it in config.json
    head.weights.h5   the weights, in KerasHub's format

A sequence head computes `logits` from the first position, a token head `token_logits` of every position.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Literal, get_args

from electra_serve.errors import PresetError
from electra_serve.presets.config import BackboneConfig
from electra_serve.presets.files import read_json, write_json
from electra_serve.presets.texts import is_utf8
from electra_serve.tensors import Output

HeadKind = Literal["sequence_classification", "token_classification", "question_answering", "replaced_token_detection"]
ScoreActivation = Literal["softmax", "sigmoid", "none"]
ProblemType = Literal["single_label_classification", "multi_label_classification", "regression"]
HeadArchitecture = Literal["electra", "bert"]

HEAD_FILE: Final = "head.json"
HEAD_WEIGHTS_FILE: Final = "head.weights.h5"
MAX_LABELS: Final = 65_536
FIXED_LABELS: Final[Mapping[HeadKind, tuple[str, ...]]] = {
    "question_answering": ("start", "end"),
    "replaced_token_detection": ("replaced",),
}
"""Labels of heads that have no others."""


@dataclass(frozen=True, slots=True)
class HeadConfig:
    """A head that is served; raises `PresetError` for a value that is none."""

    kind: HeadKind
    labels: tuple[str, ...]  # names of the L logits
    activation: ScoreActivation  # function from logits to scores
    problem_type: ProblemType | None = None  # training objective of a sequence head; None if the files name none
    # variant of a sequence head. ELECTRA's has a dense layer of its own, BERT's uses the pooler.
    architecture: HeadArchitecture = "electra"

    def __post_init__(self) -> None:
        for name, value, valid in (
            ("kind", self.kind, get_args(HeadKind)),
            ("activation", self.activation, get_args(ScoreActivation)),
            ("problem_type", self.problem_type, (None, *get_args(ProblemType))),
            ("architecture", self.architecture, get_args(HeadArchitecture)),
        ):
            if value not in valid:
                raise PresetError(f"{name} of a head must be one of {', '.join(map(str, valid))}; got {value!r:.40}")
        if not 1 <= len(self.labels) <= MAX_LABELS or not all(isinstance(label, str) for label in self.labels):
            raise PresetError(f"labels of a head must be 1 to {MAX_LABELS} texts; got {len(self.labels)}")
        unencodable = [label for label in self.labels if not is_utf8(label)]
        if unencodable:
            raise PresetError(f"labels of a head must encode as UTF-8; got {unencodable[0]!r:.40}")
        fixed = FIXED_LABELS.get(self.kind, self.labels)
        if self.labels != fixed:
            raise PresetError(f"labels of {self.kind} must be {', '.join(fixed)}; got {', '.join(self.labels):.80}")

    @property
    def output(self) -> Output:
        """The output that it computes."""
        return Output.LOGITS if self.kind == "sequence_classification" else Output.TOKEN_LOGITS

    @property
    def uses_pooler(self) -> bool:
        """True if it computes from `pooled_output`."""
        return self.kind == "sequence_classification" and self.architecture == "bert"

    @property
    def has_dense(self) -> bool:
        """True if it has a dense layer of the encoder's width before the last one."""
        if self.kind == "sequence_classification":
            return self.architecture == "electra"
        return self.kind == "replaced_token_detection"

    def dense_activation(self, config: BackboneConfig) -> str:
        """Returns the activation of its dense layer, one of `HIDDEN_ACTIVATIONS`."""
        return config.hidden_activation if self.kind == "replaced_token_detection" else "gelu"

    def parameters(self, hidden_dim: int) -> int:
        """Returns the number of its parameters."""
        dense = (hidden_dim + 1) * hidden_dim if self.has_dense else 0
        return dense + (hidden_dim + 1) * len(self.labels)


def write_head(folder: Path, head: HeadConfig) -> None:
    """Writes the description into `folder`."""
    write_json(folder / HEAD_FILE, asdict(head))


def read_head(folder: Path) -> HeadConfig | None:
    """Reads the description in `folder`, if there is one; raises `PresetError`."""
    path = folder / HEAD_FILE
    if not path.is_file():
        return None
    content = read_json(path)
    labels = content.get("labels")
    try:
        head = HeadConfig(**{**content, "labels": tuple(labels) if isinstance(labels, list) else ()})  # type: ignore[arg-type]  # checked there
    except (TypeError, PresetError) as error:
        raise PresetError(f"{path}: must describe a head that is served: {error!s:.200}") from error
    return head
