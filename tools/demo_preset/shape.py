"""Shape of the student, `electra_demo`."""

from __future__ import annotations

LAYERS, HIDDEN, HEADS, EMBEDDING, INTERMEDIATE = 3, 192, 4, 128, 384
POSITIONS = 512
