"""Writes the tables of docs/settings.md from the settings, or checks that they are up to date."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import NoneType
from typing import Annotated, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from electra_serve.settings.schema import ENV_PREFIX, ModelSettings, Settings

PAGE = Path("docs/settings.md")
BEGIN, END = "<!-- settings: begin -->", "<!-- settings: end -->"


def main() -> None:
    """Writes the table; with `--check` only compares."""
    text = PAGE.read_text()
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    fresh = f"{before}{BEGIN}\n{table()}{END}{after}"
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(fresh)
    elif fresh != text:
        sys.exit("the tables in docs/settings.md are not up to date: run `make settings-table`")


def table() -> str:
    """Both tables in Markdown: the tree, and what an entry of `models` may hold."""
    head = "|---|---|---|\n"
    tree = "".join(_row(*row) for row in _fields(Settings, ""))
    model = "".join(_row(*row) for row in _fields(ModelSettings, "", prefixed=False))
    return (
        "\n| flag, variable | default | meaning |\n"
        + head
        + tree
        + "\nEach entry of `models` may hold:\n\n| field | default | meaning |\n"
        + head
        + model
        + "\n"
    )


def _fields(section: type[BaseModel], path: str, *, prefixed: bool = True) -> Iterator[tuple[str, str, str]]:
    for name, field in section.model_fields.items():
        annotation = field.annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            yield from _fields(annotation, f"{path}{name}.")
            continue
        dotted = path + name
        shown = f"`--{dotted}`<br>`{ENV_PREFIX}{dotted.upper().replace('.', '__')}`" if prefixed else f"`{dotted}`"
        yield shown, _default(field), " ".join((field.description or "").split()) + _choices(annotation)


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    if field.default in (None, "", ()):
        return ""
    if isinstance(field.default, tuple):
        return "`" + ", ".join(model.preset for model in field.default) + "`"
    return f"`{str(field.default).lower() if isinstance(field.default, bool) else field.default}`"


def _choices(annotation: object) -> str:
    if get_origin(annotation) is Annotated:
        return _choices(get_args(annotation)[0])
    if get_origin(annotation) is not Literal:
        return ""
    return " One of " + ", ".join(f"`{choice}`" for choice in get_args(annotation) if choice is not NoneType) + "."


def _row(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


if __name__ == "__main__":
    main()
