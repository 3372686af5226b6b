"""Who calls: the owner of the key that came with the request where keys are asked for, else the peer's address."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from electra_serve.api.security.api_keys import KeyRing
from electra_serve.errors import Unauthenticated

API_KEY: Final = "x-api-key"
AUTHORIZATION: Final = "authorization"


class Authenticator:
    """Names the caller of each request, for fairness between them.

    Args:
        keys: Those that are accepted; None: everyone is.
        certified: Whether a client must have shown a certificate.
    """

    def __init__(self, keys: KeyRing | None = None, *, certified: bool = False) -> None:
        self._keys = keys
        self._certified = certified

    @property
    def keyed(self) -> bool:
        """Whether a key is asked for."""
        return self._keys is not None

    def name_of(self, metadata: Mapping[str, str | bytes], peer: str, *, certified: bool = True) -> str:
        """The caller's name.

        Args:
            metadata: The request's headers, or a call's metadata.
            peer: The address that it came from.
            certified: Whether it came over a connection whose client has shown a good certificate.

        Raises:
            Unauthenticated: A key is asked for, and no valid one came; or a certificate, and none did.
        """
        if self._certified and not certified:
            raise Unauthenticated("a client certificate is needed; received none")
        return peer if self._keys is None else self._keys.client_of(credential(metadata))


ALLOW_ALL: Final = Authenticator()
"""Asks for no key."""


def credential(metadata: Mapping[str, str | bytes]) -> str | None:
    """The key that came with a request, unchecked: `x-api-key`, or else the token of `authorization: Bearer`.

    In that order, because a proxy on the way may need `authorization` for itself. A header that is sent twice is one
    value of both, which is no key: see `electra_serve.api.request_options.joined`.

    Example:
        >>> credential({"authorization": "bearer abc"}), credential({"authorization": "Basic abc"})
        ('abc', None)
    """
    key = metadata.get(API_KEY)
    if key is None:
        scheme, _, token = str(metadata.get(AUTHORIZATION, "")).strip().partition(" ")
        key = token.strip() if scheme.lower() == "bearer" else None
    return key if isinstance(key, str) else None
