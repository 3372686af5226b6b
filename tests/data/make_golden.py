"""Makes the golden files next to this script, with KerasHub itself.

Run in an environment that has keras-hub 0.32, tensorflow and tensorflow-text, from the repository's root:

    python -m tests.data.make_golden

It imports nothing of `service`: all data are KerasHub's. The tests in tests/unit/model and
tests/unit/presets read it; they need no KerasHub.

    {below,equal,above}/         preset folders as KerasHub saves them: embedding_dim <, = and > hidden_dim
    sharded/                     `below` again, its weights in shards
    {below,equal,above}.npz      inputs and outputs, `<case>/<name>`
    tokenizer.json               texts and their ids under each tokenizer setting, and packed pairs
"""

from __future__ import annotations

import itertools
import json
import shutil
import sys
import unicodedata
from pathlib import Path
from typing import Any

import keras_hub
import numpy as np

HERE = Path(__file__).parent
VOCABULARY = HERE / "vocabulary.txt"
CORPUS = HERE.parents[1] / "tools/demo_preset/books"

EMBEDDING_DIMS = {"below": 8, "equal": 16, "above": 24}
MAX_SEQUENCE_LENGTH = 16
SHAPE = {
    "vocab_size": 60,
    "num_layers": 2,
    "num_heads": 4,
    "hidden_dim": 16,
    "intermediate_dim": 32,
    "max_sequence_length": MAX_SEQUENCE_LENGTH,
}

ODD_TEXTS = [
    "",
    " ",
    "\t\n\r\x0b\x0c",
    "Plain words, nothing else.",
    "Isn't it? (Yes!) $5 + 10% = ~5.50^2 `code` <tag> a_b|c",
    "UPPER lower MiXeD ΣΊΣΥΦΟΣ ς ẞ Straße İstanbul ı ǅ",
    "café cafe\u0301 naïve Ångström ñandú crème brûlée ﬁne ﬂow",
    "日本語のテキスト 中文文本，标点。한국어 텍스트 ｆｕｌｌｗｉｄｔｈ",
    "ideograph豈 extension𠀀𪜀 mixed漢字word",
    "emoji 😀 👩‍👩‍👧‍👦 ❤️ 🇬🇧 flag",
    "no\u00a0break thin\u2009space ideographic\u3000space narrow\u202fspace",
    "zero\u200bwidth soft\u00adhyphen joiner\u200dx mark\u200ey bom\ufeffz",
    "control\x00null \x07bell \x1besc \x7fdel \x85nel",
    "½ ¼ x² ㈱ ℃ … ‥ ™ № Ⅷ ㎏",
    "“curly” ‘quotes’ – — ― « » ¿ ¡ § ¶ †",
    "Здравствуй, мир! ἀρχή שלום مرحبا नमस्ते สวัสดี",
    "[CLS] [SEP] [PAD] [MASK] [UNK] ##ing ## #",
    "https://example.org/a?b=c&d=e#f someone@example.org 3.14159 1,000,000",
    "x" * 100,
    "x" * 101,
    "é" * 50 + " " + "é" * 51,
    "a" * 40 + "日" + "b" * 40,
    "\ufffd replacement \U000e0001 tag \u2028 line \u2029 paragraph",
    "\u0300leading mark e\u0301\u0323 stacked \u1e69",
    "\u1100\u1161 jamo \u115f filler \u3164",
]


def main() -> None:
    """Writes every golden file."""
    for name, embedding_dim in EMBEDDING_DIMS.items():
        backbone = make_backbone(embedding_dim)
        save(backbone, HERE / name)
        np.savez_compressed(HERE / f"{name}.npz", **golden_arrays(backbone))
    save(make_backbone(EMBEDDING_DIMS["below"]), HERE / "sharded", max_shard_size=16 / 2**20)
    content = json.dumps(tokenizer_golden(), ensure_ascii=True, separators=(",", ":"))
    (HERE / "tokenizer.json").write_text(content + "\n", encoding="utf-8")


def make_backbone(embedding_dim: int) -> Any:
    """A model whose every weight matters: none is 0, no norm is the identity, and attention is not uniform."""
    backbone = keras_hub.models.ElectraBackbone(**SHAPE, embedding_dim=embedding_dim, name="electra_backbone")
    generator = np.random.default_rng(embedding_dim)
    for variable in backbone.weights:
        center = 1.0 if variable.name == "gamma" else 0.0
        variable.assign(center + 0.3 * generator.standard_normal(variable.shape))
    return backbone


def save(backbone: Any, folder: Path, **kwargs: Any) -> None:
    """Saves a preset without the date, so that a second run writes the same."""
    shutil.rmtree(folder, ignore_errors=True)
    backbone.save_to_preset(folder, **kwargs)
    metadata = json.loads((folder / "metadata.json").read_text())
    del metadata["date_saved"]
    (folder / "metadata.json").write_text(json.dumps(metadata, indent=4) + "\n")


def golden_arrays(backbone: Any) -> dict[str, Any]:
    """Inputs and outputs of every case."""
    arrays: dict[str, Any] = {}
    for case, inputs in cases().items():
        outputs = backbone(inputs, training=False)
        arrays |= {f"{case}/{name}": np.asarray(value) for name, value in {**inputs, **outputs}.items()}
    return arrays


def cases() -> dict[str, dict[str, Any]]:
    """Batches that differ in one thing each, and one in everything."""
    padded, holed, segmented, everything = (batch(seed, 3, 9) for seed in range(4))
    for inputs in (padded, everything):
        inputs["padding_mask"][1, 6:] = 0
        inputs["padding_mask"][2, 1:] = 0
    for inputs in (holed, everything):
        inputs["padding_mask"][0, 3:5] = 0
    for inputs in (segmented, everything):
        inputs["segment_ids"][:, 4:] = 1
    return {
        "trailing_padding": padded,
        "hole_in_mask": holed,
        "segment_one": segmented,
        "everything": everything,
        "length_one": batch(4, 2, 1),
        "length_max": batch(5, 2, MAX_SEQUENCE_LENGTH),
    }


def batch(seed: int, rows: int, length: int) -> dict[str, Any]:
    """Random ids, one segment, nothing masked."""
    token_ids = np.random.default_rng(seed).integers(0, SHAPE["vocab_size"], (rows, length), dtype=np.int32)
    return {
        "token_ids": token_ids,
        "segment_ids": np.zeros_like(token_ids),
        "padding_mask": np.ones_like(token_ids),
    }


def tokenizer_golden() -> dict[str, Any]:
    """Ids of each text under each setting; and texts packed in pairs."""
    vocabulary = tokenizer_vocabulary()
    return {
        "extra_pieces": vocabulary[len(VOCABULARY.read_text(encoding="utf-8").splitlines()) :],
        "texts": texts(),
        "settings": [
            {"lowercase": lowercase, "strip_accents": strip_accents, "ids": ids(vocabulary, lowercase, strip_accents)}
            for lowercase, strip_accents in itertools.product((False, True), repeat=2)
        ],
        "pairs": packed_pairs(vocabulary),
    }


def texts() -> list[str]:
    """Oddities, prose and noise."""
    generator = np.random.default_rng(7)
    prose = [line for path in sorted(CORPUS.glob("*.txt")) for line in path.read_text().splitlines() if line.strip()]
    chosen = [prose[i] for i in generator.choice(len(prose), 150, replace=False)]
    return [*ODD_TEXTS, *chosen, *(noise(generator) for _ in range(150))]


def noise(generator: np.random.Generator) -> str:
    """Characters from all over Unicode: blocks that matter here, and anything else that is assigned."""
    blocks = [(0, 0x250), (0x300, 0x400), (0x2000, 0x2100), (0x3000, 0x3100), (0xFE00, 0x10000), (0, 0x30000)]
    chars: list[str] = []
    while len(chars) < 24:
        char = chr(generator.integers(*blocks[generator.integers(len(blocks))]))
        if unicodedata.category(char) not in {"Cs", "Cn", "Co"}:
            chars.append(char)
    return "".join(chars)


def tokenizer_vocabulary() -> list[str]:
    """The demo's pieces, and every character that the texts can come down to: unknown words would hide mistakes."""
    pieces = VOCABULARY.read_text(encoding="utf-8").splitlines()
    characters: set[str] = set()
    for text in texts():
        for form in ("NFC", "NFD", "NFKC", "NFKD"):
            normal = unicodedata.normalize(form, text)
            characters |= {*normal, *normal.casefold(), *normal.lower()}
    characters = {char for char in characters if not char.isspace() and unicodedata.category(char) != "Cc"}
    extra = [piece for char in sorted(characters) for piece in (char, f"##{char}")]
    return [*pieces, *(piece for piece in extra if piece not in set(pieces))]


def ids(vocabulary: list[str], lowercase: bool, strip_accents: bool) -> list[list[int]]:
    """KerasHub's ids, which its two implementations agree on."""
    tokenizer = keras_hub.models.ElectraTokenizer(vocabulary, lowercase=lowercase, strip_accents=strip_accents)
    in_python = [[int(i) for i in row] for row in tokenizer._tokenize_python(texts())]
    in_tensorflow = [[int(i) for i in row] for row in tokenizer._tokenize_tf(texts())]
    for text, ours, theirs in zip(texts(), in_python, in_tensorflow, strict=True):
        if ours != theirs:
            sys.stderr.write(f"KerasHub disagrees with itself on {text!r}: {ours} in Python, {theirs} in TensorFlow\n")
    return in_python


def packed_pairs(vocabulary: list[str]) -> list[dict[str, Any]]:
    """Pairs as KerasHub's packer truncates them, without its padding."""
    tokenizer = keras_hub.models.ElectraTokenizer(vocabulary, lowercase=True)
    pairs = [
        ("the rabbit was late", "who was late?"),
        ("a b c d e f g h", "a b"),
        ("a b", "a b c d e f g h"),
        ("", "a"),
    ]
    golden = []
    for (first, second), length in itertools.product(pairs, (3, 4, 7, 8, 32)):
        packer = keras_hub.layers.MultiSegmentPacker(
            sequence_length=length,
            start_value=tokenizer.cls_token_id,
            end_value=tokenizer.sep_token_id,
            pad_value=-1,
        )
        token_ids, segment_ids = (np.asarray(part) for part in packer((tokenizer(first), tokenizer(second))))
        kept = token_ids != -1
        row = {"texts": [first, second], "max_length": length}
        golden.append({**row, "token_ids": token_ids[kept].tolist(), "segment_ids": segment_ids[kept].tolist()})
    return golden


if __name__ == "__main__":
    main()
