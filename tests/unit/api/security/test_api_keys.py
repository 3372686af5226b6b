"""Keys: accepted ones, errors for others, and a file that changes while the service runs."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
import structlog
from structlog.testing import LogCapture

from electra_serve.api.security.api_keys import MIN_KEY_CHARACTERS, KeyRing
from electra_serve.api.security.authentication import Authenticator, credential
from electra_serve.api.security.reloading import LOOK_S, SETTLE_S
from electra_serve.errors import SettingsError, Unauthenticated

SHOP, DESK = "shop-0123456789abcdef", "desk+/~._-0123456789=="
NOW = 1_700_000_000.0


class Keys:
    """A key file, a clock and a ring on both."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "keys"
        self.log = LogCapture()
        self.time = NOW
        self.write(f"shop:{SHOP}\n{DESK}\n")
        self.ring = self.open()

    def open(self) -> KeyRing:
        log = structlog.wrap_logger(None, [self.log], structlog.make_filtering_bound_logger("debug"))
        return KeyRing(self.path, log, now=lambda: self.time)

    def write(self, text: str, *, age_s: float = 60.0) -> None:
        """Puts a file in place, last written to so long ago."""
        written = self.path.with_name("written")
        written.write_text(text)
        os.utime(written, (self.time - age_s, self.time - age_s))
        written.rename(self.path)

    def pass_time(self, seconds: float) -> None:
        self.time += seconds

    @property
    def events(self) -> list[str]:
        return [entry["event"] for entry in self.log.entries]


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return Keys(tmp_path)


def test_each_key_is_its_clients(keys: Keys) -> None:
    assert keys.ring.client_of(SHOP) == "shop"
    assert keys.ring.client_of(DESK).startswith("key-")
    assert DESK not in keys.ring.client_of(DESK)


@pytest.mark.parametrize(
    "candidate", [None, "", SHOP[:-1], SHOP + "x", SHOP.upper(), f"shop:{SHOP}", "\udcff", "ü" * 20, "x" * 100_000]
)
def test_anything_else_is_no_key_and_is_not_repeated(keys: Keys, candidate: str | None) -> None:
    with pytest.raises(Unauthenticated) as rejection:
        keys.ring.client_of(candidate)
    assert "shop" not in str(rejection.value)
    assert len(str(rejection.value)) < 100


def test_comments_blank_lines_and_space_do_not_count(keys: Keys) -> None:
    keys.write(f"\ufeff# the shop's\n\n  shop : {SHOP}  \r\n\t# and no more\n")
    assert keys.open().client_of(SHOP) == "shop"


def test_the_shortest_key_from_both_sides(keys: Keys) -> None:
    keys.write("k" * MIN_KEY_CHARACTERS)
    keys.open().client_of("k" * MIN_KEY_CHARACTERS)
    keys.write("k" * (MIN_KEY_CHARACTERS - 1))
    with pytest.raises(SettingsError, match=r"line 1: a key must have at least 16 characters; it has 15$"):
        keys.open()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "at least one key is required"),
        ("# nothing\n", "at least one key is required"),
        (f"{SHOP}\n{SHOP}", "line 2: each key may occur once"),
        (f"a:{SHOP}\nb:{SHOP}", "line 2: each key may occur once"),
        (f"{SHOP} {DESK}", "line 1: a key must be of"),
        (f"the shop:{SHOP}", "line 1: a name must be"),
        (f"\n:{SHOP}", "line 2: a name must be"),
        ("schlüssel-0123456789", "line 1: a key must be of"),
        ("x" * (2**20 + 1), "must have at most 1048576 bytes"),
    ],
)
def test_a_bad_file_is_one_line_without_a_key(keys: Keys, text: str, message: str) -> None:
    keys.write(text)
    with pytest.raises(SettingsError) as rejection:
        keys.open()
    assert message in str(rejection.value)
    assert SHOP not in str(rejection.value)
    assert "\n" not in str(rejection.value)


def test_bytes_that_are_no_text_are_not_repeated(keys: Keys) -> None:
    keys.path.write_bytes(b"secret-0123456789\xff")
    with pytest.raises(SettingsError, match="not UTF-8") as rejection:
        keys.open()
    assert rejection.value.__cause__ is None


def test_a_file_that_is_not_there_is_an_error_at_start(keys: Keys) -> None:
    keys.path.unlink()
    with pytest.raises(SettingsError, match="cannot be read: No such file"):
        keys.open()


def test_a_file_that_anyone_may_write_to_is_rejected(keys: Keys) -> None:
    keys.path.chmod(0o660)
    keys.open()
    keys.path.chmod(0o662)
    with pytest.raises(SettingsError, match="must not be writable for everyone"):
        keys.open()


def test_a_file_put_in_place_counts_from_the_next_look_on(keys: Keys) -> None:
    keys.write(f"desk:{DESK}\n")
    keys.pass_time(LOOK_S * 0.99)
    assert keys.ring.client_of(SHOP) == "shop"
    keys.pass_time(LOOK_S * 0.01)
    assert keys.ring.client_of(DESK) == "desk"
    with pytest.raises(Unauthenticated):
        keys.ring.client_of(SHOP)
    assert keys.events == ["files reloaded"]


def test_a_secret_is_swapped_by_its_symlink(tmp_path: Path) -> None:
    for version, key in (("1", SHOP), ("2", DESK)):
        (tmp_path / version).mkdir()
        (tmp_path / version / "keys").write_text(key)
        os.utime(tmp_path / version / "keys", (NOW - 60, NOW - 60))
    (tmp_path / "data").symlink_to("1")
    (tmp_path / "mounted").symlink_to("data/keys")
    time = NOW
    ring = KeyRing(tmp_path / "mounted", structlog.wrap_logger(None, [LogCapture()]), now=lambda: time)
    ring.client_of(SHOP)
    (tmp_path / "next").symlink_to("2")
    (tmp_path / "next").rename(tmp_path / "data")
    time += LOOK_S
    ring.client_of(DESK)


def test_a_file_that_is_being_written_waits_until_it_has_settled(keys: Keys) -> None:
    keys.pass_time(LOOK_S)
    keys.write(f"desk:{DESK[:16]}", age_s=0.0)  # half of it: a key by itself
    assert keys.ring.client_of(SHOP) == "shop"
    keys.pass_time(LOOK_S * 0.999)
    keys.write(f"desk:{DESK}\n", age_s=0.0)
    keys.pass_time(LOOK_S * 0.999)
    assert keys.ring.client_of(SHOP) == "shop"
    keys.pass_time(SETTLE_S)
    assert keys.ring.client_of(DESK) == "desk"


def unlink(keys: Keys) -> None:
    keys.path.unlink()


def empty(keys: Keys) -> None:
    keys.write("")


def break_it(keys: Keys) -> None:
    keys.write("shop:short\n")


def open_to_all(keys: Keys) -> None:
    keys.write(f"desk:{DESK}\n")
    keys.path.chmod(stat.S_IRUSR | stat.S_IWOTH)


@pytest.mark.parametrize("spoil", [unlink, empty, break_it, open_to_all])
def test_an_invalid_file_changes_nothing_and_is_logged_once(keys: Keys, spoil: Callable[[Keys], None]) -> None:
    spoil(keys)
    for _ in range(3):
        keys.pass_time(LOOK_S)
        assert keys.ring.client_of(SHOP) == "shop"
    assert keys.events == ["files not reloaded"]
    assert "short" not in str(keys.log.entries)

    keys.write(f"desk:{DESK}\n")
    keys.pass_time(LOOK_S)
    assert keys.ring.client_of(DESK) == "desk"


def test_a_clock_that_is_set_back_does_not_stop_the_looking(keys: Keys) -> None:
    keys.write(f"desk:{DESK}\n")
    keys.pass_time(-3600)
    keys.ring.client_of(DESK)


@pytest.mark.parametrize(
    ("metadata", "key"),
    [
        ({}, None),
        ({"authorization": "Bearer abc"}, "abc"),
        ({"authorization": "BEARER  abc "}, "abc"),
        ({"authorization": "Bearer"}, ""),
        ({"authorization": "Basic abc"}, None),
        ({"authorization": "abc"}, None),
        ({"x-api-key": "abc"}, "abc"),
        ({"x-api-key": "abc", "authorization": "Basic def"}, "abc"),
        ({"x-api-key": b"abc"}, None),
    ],
)
def test_where_a_key_stands(metadata: dict[str, str | bytes], key: str | None) -> None:
    assert credential(metadata) == key


def test_without_keys_a_caller_is_its_address() -> None:
    assert Authenticator().name_of({"x-api-key": SHOP}, "10.0.0.7") == "10.0.0.7"
    assert not Authenticator().keyed


def test_with_keys_a_caller_is_its_keys_owner(keys: Keys) -> None:
    authenticator = Authenticator(keys.ring)
    assert authenticator.keyed
    assert authenticator.name_of({"authorization": f"Bearer {SHOP}"}, "10.0.0.7") == "shop"
    with pytest.raises(Unauthenticated):
        authenticator.name_of({}, "10.0.0.7")
