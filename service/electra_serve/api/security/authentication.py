"""Authentication of requests: the client is the owner of the API key or, without keys, the peer's address."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from electra_serve.api.security.api_keys import KeyRing
from electra_serve.errors import Unauthenticated

API_KEY: Final = "x-api-key"
AUTHORIZATION: Final = "authorization"


class Authenticator:
    """Names the client of each request, for fairness between clients.

    `keys` None accepts requests without a key; `certified` requires a client certificate.
    """

    def __init__(self, keys: KeyRing | None = None, *, certified: bool = False) -> None:
        self._keys = keys
        self._certified = certified

    @property
    def keyed(self) -> bool:
        """True if requests need a key."""
        return self._keys is not None

    def name_of(self, metadata: Mapping[str, str | bytes], peer: str, *, certified: bool = True) -> str:
        """Returns the client's name; raises `Unauthenticated` if the key or the certificate is missing or invalid."""
        if self._certified and not certified:
            raise Unauthenticated("a client certificate is required; got none")
        return peer if self._keys is None else self._keys.client_of(credential(metadata))


ALLOW_ALL: Final = Authenticator()  # requires no key


def credential(metadata: Mapping[str, str | bytes]) -> str | None:
    """Returns the unchecked key of a request: `x-api-key`, or else the token of `authorization: Bearer`.

    A proxy may use `authorization` for itself, so `x-api-key` comes first. Repeated headers form one value, which is
    not a valid key: see `electra_serve.api.request_options.joined`.

    >>> credential({"authorization": "bearer abc"}), credential({"authorization": "Basic abc"})
    ('abc', None)
    """
    key = metadata.get(API_KEY)
    if key is None:
        scheme, _, token = str(metadata.get(AUTHORIZATION, "")).strip().partition(" ")
        key = token.strip() if scheme.lower() == "bearer" else None
    return key if isinstance(key, str) else None
