"""Which failures are forgiven: a pure function of what clients, origin and killer noted.

A response may break off, or be an error, only because the origin broke off or
failed just there, or because the worker that gave it was killed. Times are of
the clock that all processes share.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

#: Seconds by which two processes may note one event differently.
SLACK = 0.5

#: What the origin may do to an answer that is not the cache's fault.
FAULTS = frozenset({"500", "hung up", "cut"})


@dataclasses.dataclass(frozen=True)
class Failure:
    """A request that did not get what it asked for.

    :param began: seconds.
    :param worker: the process that answered; ``None``: nobody knows, there was no head.
    :param answer: the number of the origin's answer that it was; ``None``: of none.
    """

    what: str
    image: int
    began: float
    ended: float
    status: int | None = None
    worker: int | None = None
    answer: int | None = None


@dataclasses.dataclass(frozen=True)
class Kill:
    """A worker was killed, at some moment between two."""

    pid: int
    began: float
    ended: float


def unforgiven(
    failures: Iterable[Failure], log: Sequence[Mapping[str, Any]], kills: Sequence[Kill]
) -> list[Failure]:
    """Give the failures that nothing excuses.

    :param log: what the origin wrote, one mapping for each answer.
    """
    by_answer = {line["answer"]: line for line in log}
    return [
        failure
        for failure in failures
        if not (
            _was_killed(failure, kills)
            or _origin_failed(failure, by_answer.get(failure.answer))
            or any(_is_behind(failure, line) for line in log if line["image"] == failure.image)
        )
    ]


def _was_killed(failure: Failure, kills: Sequence[Kill]) -> bool:
    return any(
        failure.worker in (None, kill.pid)
        and failure.began <= kill.ended + SLACK
        and kill.began <= failure.ended + SLACK
        for kill in kills
    )


def _origin_failed(failure: Failure, line: Mapping[str, Any] | None) -> bool:
    """The answer that the client was given is one that failed."""
    return line is not None and line["image"] == failure.image and line["outcome"] in FAULTS


def _is_behind(failure: Failure, line: Mapping[str, Any]) -> bool:
    """Another answer failed, of which the client knows nothing but the failure: the origin
    hung up before its head, or it was asked for the rest of what broke off elsewhere."""
    if line["outcome"] not in FAULTS:
        return False
    meanwhile = failure.began <= line["ended"] + SLACK and line["began"] <= failure.ended + SLACK
    # Whatever broke off before the server had sent its head is a 500 of the server's own.
    in_a_head = failure.status in (500, 502, 504) and line["outcome"] != "500"
    in_a_head = in_a_head and failure.answer is None
    in_a_body = failure.status == 200 and line["range"] is not None
    return meanwhile and (in_a_head or in_a_body)
