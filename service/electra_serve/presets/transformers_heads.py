"""Heads of transformers checkpoints: identified by `architectures` in config.json and by their tensors.

A head that is not served is no reason to reject a folder: a model's settings can ask for the encoder alone. So the
reason is part of the result.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from electra_serve.errors import PresetError
from electra_serve.presets.config import BackboneConfig
from electra_serve.presets.heads import (
    FIXED_LABELS,
    HeadArchitecture,
    HeadConfig,
    HeadKind,
    ProblemType,
    ScoreActivation,
)
from electra_serve.presets.weight_files.names import encoder_prefix, head_counterparts, is_head

ARCHITECTURES: Final[Mapping[str, tuple[HeadArchitecture, HeadKind]]] = {
    "ElectraForSequenceClassification": ("electra", "sequence_classification"),
    "ElectraForTokenClassification": ("electra", "token_classification"),
    "ElectraForQuestionAnswering": ("electra", "question_answering"),
    "ElectraForPreTraining": ("electra", "replaced_token_detection"),
    "BertForSequenceClassification": ("bert", "sequence_classification"),
    "BertForTokenClassification": ("bert", "token_classification"),
    "BertForQuestionAnswering": ("bert", "question_answering"),
}
"""Classes of transformers with a head that is served."""
ENCODERS: Final[Mapping[HeadArchitecture, str]] = {"electra": "ElectraModel", "bert": "BertModel"}
MASKED_LM: Final = "masked_lm"
MASKED_LM_CLASSES: Final = (
    "ElectraForMaskedLM",
    "BertForMaskedLM",
    "BertForPreTraining",
    "BertForNextSentencePrediction",
)
MASKED_LM_TENSORS: Final = ("generator_predictions.", "generator_lm_head.", "cls.predictions.", "cls.seq_relationship.")
TELLING_TENSORS: Final[Mapping[str, HeadKind]] = {
    "classifier.dense.weight": "sequence_classification",
    "qa_outputs.weight": "question_answering",
    "discriminator_predictions.dense.weight": "replaced_token_detection",
}
"""Tensors that identify a head if config.json does not."""

ACTIVATION_FUNCTIONS: Final[Mapping[str, ScoreActivation]] = {
    "Identity": "none",
    "Sigmoid": "sigmoid",
    "Softmax": "softmax",
}
"""Classes of torch.nn that sentence-transformers names."""
SAVED_FUNCTIONS: Final[Mapping[ScoreActivation, str]] = {
    "none": "torch.nn.modules.linear.Identity",
    "sigmoid": "torch.nn.modules.activation.Sigmoid",
    "softmax": "torch.nn.modules.activation.Softmax",
}
OLD_ACTIVATION_FIELD: Final = "sbert_ce_default_activation_function"
OBJECTIVES: Final[Mapping[ProblemType, ScoreActivation]] = {
    "single_label_classification": "softmax",
    "multi_label_classification": "sigmoid",
    "regression": "none",
}
DEFAULT_LABELS: Final = 2
"""Number of labels in transformers' default config."""

Shapes = Mapping[str, tuple[int, ...]]


class FoundHead(NamedTuple):
    """The head of a checkpoint; all empty if it has none."""

    head: HeadConfig | None = None
    unserved: str = ""
    """Name of a head that is left out."""
    problem: str = ""
    """Reason why a head cannot be served; rejects the model unless its settings ask for the encoder alone."""


def find_head(
    content: Mapping[str, object], config: BackboneConfig, shapes: Shapes | None, activation_fn: object = None
) -> FoundHead:
    """Identifies the head of a checkpoint.

    Args:
        content: config.json.
        config: The architecture that it describes.
        shapes: Shape of each tensor by its own name; None if no weights are loaded.
        activation_fn: A cross-encoder's, from another file; it has precedence over those in config.json.
    """
    try:
        return _find_head(content, config, shapes, activation_fn)
    except PresetError as error:
        return FoundHead(problem=str(error))


def _find_head(
    content: Mapping[str, object], config: BackboneConfig, shapes: Shapes | None, activation_fn: object
) -> FoundHead:
    prefix = encoder_prefix(shapes or ())
    tensors = {name: shape for name, shape in (shapes or {}).items() if is_head(name, prefix)}
    others = [name for name in tensors if not name.startswith(MASKED_LM_TENSORS)]
    named = _architecture(content)
    if named in MASKED_LM_CLASSES or (tensors and not others):
        return FoundHead(unserved=MASKED_LM)
    if named not in ARCHITECTURES and not tensors and (named in {"", *ENCODERS.values()} or shapes is not None):
        return FoundHead()
    architecture, kind = _identify(named, tensors, content)
    head = _describe(kind, architecture, content, activation_fn)
    if shapes is not None:
        _check_tensors(head, config, tensors, named)
        if head.uses_pooler and f"{prefix}pooler.dense.weight" not in shapes:
            raise PresetError(f"the head of {named} must have a pooler; pooler.dense.weight is missing")
    return FoundHead(head)


def _architecture(content: Mapping[str, object]) -> str:
    names = content.get("architectures")
    return names[0] if isinstance(names, list) and len(names) == 1 and isinstance(names[0], str) else ""


def _identify(named: str, tensors: Shapes, content: Mapping[str, object]) -> tuple[HeadArchitecture, HeadKind]:
    architecture: HeadArchitecture = "bert" if content.get("model_type") == "bert" else "electra"
    if named in ARCHITECTURES:
        if ARCHITECTURES[named][0] != architecture:
            raise PresetError(f"architectures must fit model_type {architecture}; got {named}")
        return ARCHITECTURES[named]
    known = [kind for tensor, kind in TELLING_TENSORS.items() if tensor in tensors]
    if named in {"", *ENCODERS.values()} and known:
        return architecture, known[0]
    served = ", ".join(ARCHITECTURES)
    found = named if named not in {"", *ENCODERS.values()} else f"{min(tensors)} under no class that has it"
    raise PresetError(f"the head must be of {served}; got {found:.80}")


def _describe(
    kind: HeadKind, architecture: HeadArchitecture, content: Mapping[str, object], activation_fn: object
) -> HeadConfig:
    problem_type = content.get("problem_type")
    if kind != "sequence_classification":
        labels = FIXED_LABELS.get(kind) or _labels(content)
        activation: ScoreActivation = "sigmoid" if kind == "replaced_token_detection" else "softmax"
        return HeadConfig(kind, labels, activation, architecture=architecture)
    labels = _labels(content)
    if problem_type is not None and (not isinstance(problem_type, str) or problem_type not in OBJECTIVES):
        raise PresetError(f"problem_type must be one of {', '.join(OBJECTIVES)}; got {problem_type!r:.40}")
    objective: ProblemType | None = problem_type  # type: ignore[assignment]  # one of `OBJECTIVES`
    default = default_activation(objective, len(labels))
    return HeadConfig(kind, labels, _activation(content, activation_fn) or default, objective, architecture)


def default_activation(problem_type: ProblemType | None, labels: int) -> ScoreActivation:
    """Returns the activation of transformers' text-classification pipeline.

    Example:
        >>> default_activation(None, 1), default_activation(None, 3), default_activation("regression", 1)
        ('sigmoid', 'softmax', 'none')
    """
    if problem_type is not None and (problem_type != "single_label_classification" or labels > 1):
        return OBJECTIVES[problem_type]
    return "sigmoid" if labels == 1 else "softmax"


def _labels(content: Mapping[str, object]) -> tuple[str, ...]:
    named, count = content.get("id2label"), content.get("num_labels", DEFAULT_LABELS)
    if named is None:
        if type(count) is not int or count < 1:
            raise PresetError(f"num_labels must be a positive integer; got {count!r:.40}")
        return tuple(f"LABEL_{index}" for index in range(min(count, 2**20)))
    ids = [str(index) for index in range(len(named))] if isinstance(named, Mapping) else []
    if not isinstance(named, Mapping) or not ids or any(not isinstance(named.get(id_), str) for id_ in ids):
        raise PresetError("id2label must map each id from 0 to a text; it does not")
    return tuple(named[id_] for id_ in ids)


def _activation(content: Mapping[str, object], activation_fn: object) -> ScoreActivation | None:
    """Returns the activation that sentence-transformers' `CrossEncoder` saved, in the place of any of its versions."""
    section = content.get("sentence_transformers")
    in_section = section.get("activation_fn") if isinstance(section, Mapping) else None
    places = (activation_fn, in_section, content.get(OLD_ACTIVATION_FIELD))
    named = next((place for place in places if place is not None), None)
    if named is None:
        return None
    name = named.rpartition(".")[2] if isinstance(named, str) and named.startswith("torch.nn.") else ""
    if name not in ACTIVATION_FUNCTIONS:
        valid = ", ".join(ACTIVATION_FUNCTIONS)
        raise PresetError(f"activation_fn must be one of torch.nn's {valid}; got {named!r:.80}")
    return ACTIVATION_FUNCTIONS[name]


def _check_tensors(head: HeadConfig, config: BackboneConfig, tensors: Shapes, named: str) -> None:
    wanted = {tensor.name: tensor.shape for tensor in head_counterparts(head, config).values()}
    found = ", ".join(sorted(tensors)) or "none"
    for name, shape in wanted.items():
        if name not in tensors:
            raise PresetError(f"the head of {named or head.kind} must have {name}; its tensors are {found:.200}")
        actual = tensors[name]
        if (
            len(actual) == len(shape)
            and actual[0] != shape[0]
            and actual[1:] == shape[1:]
            and shape[0] == len(head.labels)
        ):
            raise PresetError(
                f"{name} must have a row for each of {shape[0]} labels in config.json; it has {actual[0]}"
            )
        if actual != shape:
            raise PresetError(f"{name} must have shape {shape}; it has {actual}")
    surplus = sorted(tensors.keys() - wanted.keys())
    if surplus:
        raise PresetError(f"the head of {named or head.kind} must have no other tensors; it has {surplus[0]:.80}")


def head_fields(head: HeadConfig) -> dict[str, object]:
    """Returns the fields of config.json that describe a head, the inverse of `find_head`."""
    names = {served: name for name, served in ARCHITECTURES.items()}
    fields: dict[str, object] = {"architectures": [names[head.architecture, head.kind]]}
    if head.kind not in FIXED_LABELS:
        fields["id2label"] = {str(index): label for index, label in enumerate(head.labels)}
        fields["label2id"] = {label: index for index, label in enumerate(head.labels)}
    if head.kind == "sequence_classification":
        if head.problem_type is not None:
            fields["problem_type"] = head.problem_type
        if head.activation != default_activation(head.problem_type, len(head.labels)):
            fields["sentence_transformers"] = {"activation_fn": SAVED_FUNCTIONS[head.activation]}
    return fields
