"""Texts of a preset's files that responses hold. JSON can hold half a surrogate pair, UTF-8 cannot."""

from __future__ import annotations


def is_utf8(text: str) -> bool:
    r"""Returns True if UTF-8 can encode `text`.

    Example:
        >>> is_utf8("\U0001f407"), is_utf8("\ud83d")
        (True, False)
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def escape_surrogates(text: str) -> str:
    r"""Writes halves of surrogate pairs as escapes.

    Example:
        >>> escape_surrogates("é\ud83d")
        'é\\ud83d'
    """
    return text.encode(errors="backslashreplace").decode()
