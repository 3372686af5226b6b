"""Heads of transformers checkpoints: which are served, and why others are not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from electra_serve.errors import PresetError
from electra_serve.presets.folder import PresetFolder
from electra_serve.presets.heads import HeadConfig, read_head, write_head
from electra_serve.presets.sources import resolve_preset
from electra_serve.presets.transformers_heads import ARCHITECTURES, find_head, head_fields
from electra_serve.presets.weight_files.names import head_counterparts
from electra_serve.presets.weights import read_head_weights
from tests.data.reader import TRANSFORMERS

WEIGHTS = "model.safetensors"
LABELS = {"0": "bad", "1": "good", "2": "neither"}
Tensors = dict[str, np.ndarray[tuple[int, ...], np.dtype[Any]]]
IDENTITY = "torch.nn.modules.linear.Identity"
SIGMOID = "torch.nn.modules.activation.Sigmoid"


def checkpoint(folder: Path, architecture: str, labels: int = 2, **config: Any) -> Path:
    """The golden checkpoint of equal widths, with the head of `architecture`; BERT's has a pooler."""
    shutil.copytree(TRANSFORMERS / "equal", folder)
    kind, head_kind = ARCHITECTURES[architecture]
    fixed = {"question_answering": ("start", "end"), "replaced_token_detection": ("replaced",)}
    head = HeadConfig(head_kind, fixed.get(head_kind, tuple("x" * labels)), "softmax", architecture=kind)
    generator = np.random.default_rng(0)
    tensors = {f"{kind}.{name.removeprefix('electra.')}": t for name, t in load_file(folder / WEIGHTS).items()}
    for tensor in head_counterparts(head, resolve_preset(str(TRANSFORMERS / "equal")).config).values():
        tensors[tensor.name] = generator.standard_normal(tensor.shape).astype(np.float32)
    if kind == "bert":
        tensors["bert.pooler.dense.weight"] = np.ones((16, 16), np.float32)
        tensors["bert.pooler.dense.bias"] = np.ones(16, np.float32)
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    rewrite(folder, **{"architectures": [architecture], "model_type": kind, **config})
    return folder


def rewrite(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def edit(folder: Path, change: Callable[[Tensors], object]) -> None:
    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})


def load(folder: Path) -> PresetFolder:
    return resolve_preset(str(folder)).with_head("auto")


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("named", [True, False])
def test_every_head_is_read(architecture: str, named: bool, tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "checkpoint", architecture)
    kind, head_kind = ARCHITECTURES[architecture]
    if not named:  # config.json of an old version, or of the encoder
        rewrite(folder, architectures=[{"electra": "ElectraModel", "bert": "BertModel"}[kind]])
        if "classifier.weight" in load_file(folder / WEIGHTS):
            with pytest.raises(PresetError, match=r"the head must be of .*; got classifier.bias under no class"):
                load(folder)
            return
    preset = load(folder)
    assert preset.head is not None
    assert (preset.head.kind, preset.head.architecture, preset.head_name) == (head_kind, kind, head_kind)
    stored = load_file(folder / WEIGHTS)
    for path, tensor in head_counterparts(preset.head, preset.config).items():
        read = dict(read_head_weights(preset, load_weights=True))[path]
        np.testing.assert_array_equal(tensor.to_transformers(read), stored[tensor.name])
    assert preset.parameters == preset.config.parameters + sum(
        stored[tensor.name].size for tensor in head_counterparts(preset.head, preset.config).values()
    )


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_encoder_alone_is_served_on_request(architecture: str, tmp_path: Path) -> None:
    preset = resolve_preset(str(checkpoint(tmp_path / "checkpoint", architecture))).with_head("none")
    assert (preset.head, preset.head_name, preset.parameters) == (None, "none", preset.config.parameters)


@pytest.mark.parametrize(
    ("config", "labels", "activation"),
    [
        ({"id2label": LABELS}, ("bad", "good", "neither"), "softmax"),
        ({"id2label": LABELS, "problem_type": "multi_label_classification"}, ("bad", "good", "neither"), "sigmoid"),
        ({"num_labels": 3}, ("LABEL_0", "LABEL_1", "LABEL_2"), "softmax"),
        ({}, ("LABEL_0", "LABEL_1"), "softmax"),
        ({"id2label": {"0": "score"}}, ("score",), "sigmoid"),
        ({"id2label": {"0": "score"}, "problem_type": "single_label_classification"}, ("score",), "sigmoid"),
        ({"id2label": {"0": "score"}, "problem_type": "regression"}, ("score",), "none"),
        ({"id2label": {"0": "x"}, "sentence_transformers": {"activation_fn": IDENTITY}}, ("x",), "none"),
        ({"id2label": {"0": "x"}, "sbert_ce_default_activation_function": IDENTITY}, ("x",), "none"),
        (
            {
                "id2label": LABELS,
                "sentence_transformers": {"activation_fn": SIGMOID},
                "sbert_ce_default_activation_function": IDENTITY,
            },
            ("bad", "good", "neither"),
            "sigmoid",
        ),
        ({"sentence_transformers": {"version": "4.0"}, "problem_type": None}, ("LABEL_0", "LABEL_1"), "softmax"),
    ],
)
def test_labels_and_activation_are_those_of_the_config(
    config: dict[str, Any], labels: tuple[str, ...], activation: str, tmp_path: Path
) -> None:
    architecture = "ElectraForSequenceClassification"
    head = load(checkpoint(tmp_path / "checkpoint", architecture, len(labels), **config)).head
    assert head is not None
    assert (head.labels, head.activation, head.problem_type) == (labels, activation, config.get("problem_type"))


def test_a_cross_encoder_of_new_versions_has_its_activation_in_another_file(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "checkpoint", "BertForSequenceClassification", 1, id2label={"0": "x"})
    module = {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.base.modules.transformer.Transformer"}
    (folder / "modules.json").write_text(json.dumps([module]))
    described = {"model_type": "CrossEncoder", "activation_fn": IDENTITY, "prompts": {}}
    before = resolve_preset(str(TRANSFORMERS / "equal")).embedding
    (folder / "config_sentence_transformers.json").write_text(json.dumps(described))
    preset = load(folder)
    assert preset.head is not None
    assert (preset.head.activation, preset.embedding) == ("none", before)
    revision = preset.revision
    (folder / "config_sentence_transformers.json").write_text(json.dumps({**described, "activation_fn": SIGMOID}))
    changed = load(folder)
    assert changed.head is not None
    assert changed.head.activation == "sigmoid"
    assert changed.revision != revision


def drop_pooler(tensors: Tensors) -> None:
    del tensors["bert.pooler.dense.weight"], tensors["bert.pooler.dense.bias"]


def as_berts(tensors: Tensors) -> None:
    for name in [name for name in tensors if name.startswith("classifier.")]:
        del tensors[name]
    tensors["classifier.weight"] = np.zeros((2, 16), np.float32)
    tensors["classifier.bias"] = np.zeros(2, np.float32)


def crf(tensors: Tensors) -> None:
    tensors["crf.transitions"] = np.zeros((2, 2), np.float32)


def without_bias(tensors: Tensors) -> None:
    del tensors["qa_outputs.bias"]


@pytest.mark.parametrize(
    ("architecture", "config", "change", "message"),
    [
        ("ElectraForSequenceClassification", {"id2label": LABELS}, None, "must have a row for each of 3 labels"),
        ("ElectraForSequenceClassification", {}, as_berts, "must have classifier.dense.weight; its tensors are clas"),
        ("BertForSequenceClassification", {}, drop_pooler, "must have a pooler; pooler.dense.weight is missing"),
        ("ElectraForTokenClassification", {}, crf, "must have no other tensors; it has crf.transitions"),
        ("ElectraForTokenClassification", {"architectures": ["ElectraCRF"]}, None, "the head must be of .*; got Elec"),
        ("ElectraForTokenClassification", {"architectures": ["BertForTokenClassification"]}, None, "must fit model_t"),
        ("ElectraForQuestionAnswering", {}, without_bias, "must have qa_outputs.bias; its tensors are qa_outputs.wei"),
        ("BertForTokenClassification", {"architectures": ["BertForMultipleChoice"]}, None, "got BertForMultipleChoi"),
        ("BertForTokenClassification", {"id2label": {"0": "a", "2": "b"}}, None, "id2label must map each id from 0"),
        ("BertForTokenClassification", {"id2label": ["a", "b"]}, None, "id2label must map each id from 0"),
        ("BertForTokenClassification", {"id2label": {"0": "a", "1": "B-\ud800"}}, None, r"UTF-8; got 'B-\\ud800'"),
        ("BertForSequenceClassification", {"problem_type": ["x"]}, None, r"problem_type must be one of .*; got \['x'"),
        ("BertForTokenClassification", {"num_labels": "2"}, None, "num_labels must be a positive integer"),
        ("BertForSequenceClassification", {"problem_type": "ranking"}, None, "problem_type must be one of"),
        (
            "BertForSequenceClassification",
            {"sentence_transformers": {"activation_fn": "mine.Scale"}},
            None,
            r"activation_fn must be one of torch.nn's Identity, Sigmoid, Softmax; got 'mine.Scale'",
        ),
    ],
)
def test_a_head_that_cannot_be_served_is_rejected_with_the_reason(
    architecture: str,
    config: dict[str, Any],
    change: Callable[[Tensors], object] | None,
    message: str,
    tmp_path: Path,
) -> None:
    folder = checkpoint(tmp_path / "checkpoint", architecture, **config)
    if change:
        edit(folder, change)
    with pytest.raises(PresetError, match=message) as caught:
        load(folder)
    assert "`head: none` serves the encoder alone" in str(caught.value)
    assert len(str(caught.value)) < 700
    assert resolve_preset(str(folder)).with_head("none").head is None


ANY_JSON: tuple[object, ...] = (
    None,
    True,
    0,
    1,
    -1,
    1e300,
    "",
    "x",
    "torch.nn.",
    "\ud800",
    [],
    [[]],
    ["x"],
    ["x", 1],
    {},
    {"0": []},
    {"0": "a"},
)


@pytest.mark.parametrize("architecture", ["ElectraForSequenceClassification", "BertForTokenClassification", "Other"])
@pytest.mark.parametrize(
    "field",
    [
        "architectures",
        "model_type",
        "problem_type",
        "id2label",
        "num_labels",
        "sentence_transformers",
        "sbert_ce_default_activation_function",
    ],
)
@pytest.mark.parametrize("value", ANY_JSON, ids=repr)
def test_any_json_describes_a_head_or_is_a_problem(architecture: str, field: str, value: object) -> None:
    config = resolve_preset(str(TRANSFORMERS / "bare")).config
    kind = "bert" if architecture.startswith("Bert") else "electra"
    content = {"architectures": [architecture], "model_type": kind, field: value}
    for tensors in (None, {"classifier.weight": (2, config.hidden_dim), "classifier.bias": (2,)}):
        found = find_head(content, config, tensors)
        assert found.head is None or not found.problem
    assert find_head({"architectures": [architecture], "model_type": kind}, config, None, value).unserved == ""


@pytest.mark.parametrize("name", ["generator", "bert"])
def test_masked_language_models_are_encoders(name: str, tmp_path: Path) -> None:
    folder = TRANSFORMERS / "generator"
    if name == "bert":
        folder = checkpoint(tmp_path / "checkpoint", "BertForQuestionAnswering")
        rewrite(folder, architectures=["BertForPreTraining"])

        def pretrain(tensors: Tensors) -> None:
            del tensors["qa_outputs.weight"], tensors["qa_outputs.bias"]
            tensors["cls.predictions.bias"] = np.zeros(60, np.float32)
            tensors["cls.seq_relationship.weight"] = np.zeros((2, 16), np.float32)

        edit(folder, pretrain)
    preset = load(folder)
    assert (preset.head, preset.head_name) == (None, "masked_lm (not served)")


@pytest.mark.parametrize("style", ["bare", "equal"])
def test_an_encoder_has_no_head(style: str) -> None:
    assert load(TRANSFORMERS / style).head_name == "none"


def test_without_weights_the_config_decides() -> None:
    preset = resolve_preset(str(TRANSFORMERS / "discriminator"), load_weights=False)
    assert preset.head_name == "replaced_token_detection"
    first, again = (dict(read_head_weights(preset, load_weights=False)) for _ in range(2))
    assert {path: values.shape for path, values in first.items()} == {
        "head/dense/vars/0": (16, 16),
        "head/dense/vars/1": (16,),
        "head/output/vars/0": (16, 1),
        "head/output/vars/1": (1,),
    }
    for path, values in first.items():
        np.testing.assert_array_equal(values, again[path])


FOUND: Mapping[str, HeadConfig] = {
    "sequences": HeadConfig("sequence_classification", ("a", "b"), "softmax"),
    "objective": HeadConfig("sequence_classification", ("a", "b"), "sigmoid", "multi_label_classification"),
    "cross-encoder": HeadConfig("sequence_classification", ("a",), "none", architecture="bert"),
    "tokens": HeadConfig("token_classification", ("O", "B"), "softmax", architecture="bert"),
    "questions": HeadConfig("question_answering", ("start", "end"), "softmax"),
    "replaced": HeadConfig("replaced_token_detection", ("replaced",), "sigmoid"),
}


@pytest.mark.parametrize("head", FOUND.values(), ids=FOUND)
def test_a_head_is_read_back(head: HeadConfig, tmp_path: Path) -> None:
    config = resolve_preset(str(TRANSFORMERS / "bare")).config
    content = json.loads(json.dumps({"model_type": head.architecture, **head_fields(head)}))
    assert find_head(content, config, None).head == head
    write_head(tmp_path, head)
    assert read_head(tmp_path) == head


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "ranking"}, "kind of a head must be one of"),
        ({"activation": "tanh"}, "activation of a head must be one of"),
        ({"labels": []}, "labels of a head must be 1 to 65536 texts; got 0"),
        ({"labels": "ab"}, "labels of a head must be"),
        ({"labels": ["a", 1]}, "labels of a head must be"),
        ({"labels": ["a", "\udfff"]}, r"labels of a head must encode as UTF-8; got '\\udfff'"),
        ({"kind": ["x"]}, "kind of a head must be one of"),
        ({"architecture": None}, "architecture of a head must be one of"),
        ({"problem_type": {}}, "problem_type of a head must be one of"),
        ({"kind": "question_answering"}, "labels of question_answering must be start, end; got a, b"),
        ({"x": 1}, "unexpected keyword argument"),
    ],
)
def test_an_invalid_description_is_rejected(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    write_head(tmp_path, FOUND["sequences"])
    content = json.loads((tmp_path / "head.json").read_text())
    (tmp_path / "head.json").write_text(json.dumps({**content, **change}))
    with pytest.raises(PresetError, match=message):
        read_head(tmp_path)


def test_a_problem_is_reported_with_the_preset() -> None:
    preset = replace(resolve_preset(str(TRANSFORMERS / "bare")), head_problem="the head is odd")
    with pytest.raises(PresetError, match="bare: the head is odd; `head: none` serves the encoder alone"):
        preset.with_head("auto")
