"""When a client tries again, and when not."""

from __future__ import annotations

import pytest

from electra_serve import errors
from electra_serve.client.base import Attempts
from electra_serve.client.retry import RetryPolicy
from electra_serve.errors import ModelNotReady, Overloaded, ShuttingDown, TransportError

PASSING = (Overloaded, ModelNotReady, ShuttingDown, TransportError)
POLICY = RetryPolicy(max_attempts=3, first_wait_s=0.5, max_wait_s=2.0)


def wait_s(error: errors.ElectraServeError, attempt: int = 1, remaining_s: float = 60.0, chance: float = 0.0) -> object:
    return POLICY.wait_s(error, attempt=attempt, remaining_s=remaining_s, chance=chance)


@pytest.mark.parametrize("kind", [*errors.ServiceError.__subclasses__(), TransportError])
def test_only_what_passes_by_itself_is_tried_again(kind: type[errors.ServiceError]) -> None:
    assert (wait_s(kind("no")) is not None) == issubclass(kind, PASSING)


def test_the_server_s_wait_is_kept_else_it_doubles() -> None:
    assert wait_s(errors.Overloaded("full", retry_after_s=1.25), attempt=2) == 1.25
    assert [wait_s(TransportError("no"), attempt=attempt) for attempt in (1, 2)] == [0.5, 1.0]


def test_chance_adds_up_to_a_quarter() -> None:
    assert wait_s(TransportError("no"), chance=1.0) == 0.625


def test_attempts_are_bounded() -> None:
    assert wait_s(TransportError("no"), attempt=2) is not None
    assert wait_s(TransportError("no"), attempt=3) is None


def test_a_wait_is_bounded_by_the_policy_and_by_the_caller() -> None:
    assert wait_s(errors.Overloaded("full", retry_after_s=2.0)) == 2.0
    assert wait_s(errors.Overloaded("full", retry_after_s=2.1)) is None
    assert wait_s(errors.Overloaded("full", retry_after_s=1.0), remaining_s=1.0) == 1.0
    assert wait_s(errors.Overloaded("full", retry_after_s=1.0), remaining_s=0.9) is None


def test_no_attempt_begins_after_the_time_limit() -> None:
    with pytest.raises(errors.DeadlineExceeded):
        Attempts(POLICY, timeout_s=0.0).next()


def test_an_attempt_may_take_what_is_left() -> None:
    assert 59 < Attempts(POLICY, timeout_s=60.0).next() <= 60


def test_every_slug_comes_back_as_its_class() -> None:
    own = {cls for cls in errors.ServiceError.__subclasses__() if cls.__module__ == errors.__name__}
    for cls in own:
        error = errors.error_class(cls.code)("no", field="f", retry_after_s=1.5)
        assert (type(error), error.message, error.field, error.retry_after_s) == (cls, "no", "f", 1.5)
    assert errors.error_class("newer") is errors.InternalError


@pytest.mark.parametrize("timeout_s", [float("inf"), float("nan")])
def test_a_timeout_is_finite(timeout_s: float) -> None:
    with pytest.raises(errors.InvalidInput) as caught:
        Attempts(POLICY, timeout_s)
    assert caught.value.field == "timeout_s"
