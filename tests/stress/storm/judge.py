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
    by_image: dict[int, list[Mapping[str, Any]]] = {}
    for line in log:
        by_image.setdefault(line["image"], []).append(line)
    return [
        failure
        for failure in failures
        if not (
            _was_killed(failure, kills)
            or _is_excused(failure, by_answer.get(failure.answer), by_image.get(failure.image, []))
        )
    ]


def _was_killed(failure: Failure, kills: Sequence[Kill]) -> bool:
    return any(
        failure.worker in (None, kill.pid) and _meanwhile(failure, kill.began, kill.ended)
        for kill in kills
    )


def _is_excused(
    failure: Failure, given: Mapping[str, Any] | None, lines: Sequence[Mapping[str, Any]]
) -> bool:
    """By the origin: the answer that was given failed, or another one did meanwhile.

    :param given: the log's line of the answer that was given.
    :param lines: all of the image.
    """
    if given is not None and given["image"] == failure.image and given["outcome"] in FAULTS:
        return True
    # What it confirmed may have been on its way: nobody knows which answer brings it.
    is_confirmed = given is not None and given["outcome"] == "304"
    return any(
        _is_behind(failure, line)
        or _is_replaced(failure, line, given)
        or (is_confirmed and line["outcome"] in FAULTS)
        for line in lines
        if _meanwhile(failure, line["began"], line["ended"])
    )


def _meanwhile(failure: Failure, began: float, ended: float) -> bool:
    return failure.began <= ended + SLACK and began <= failure.ended + SLACK


def _is_behind(failure: Failure, line: Mapping[str, Any]) -> bool:
    """Another answer failed, of which the client knows nothing but the failure: the origin
    hung up before its head, or it was asked for the rest of what broke off elsewhere."""
    if line["outcome"] not in FAULTS:
        return False
    # Whatever broke off before the server had sent its head is a 500 of the server's own.
    is_unsent = failure.status in (500, 502, 504) and failure.answer is None
    in_a_head = is_unsent and line["outcome"] != "500"
    in_a_body = failure.status in (200, 206) and (line["range"] is not None or line["again"])
    return in_a_head or in_a_body


def _is_replaced(
    failure: Failure, line: Mapping[str, Any], given: Mapping[str, Any] | None
) -> bool:
    """The rest of what broke off elsewhere is not to be had: there is a newer version."""
    return (
        failure.status in (200, 206)
        and given is not None
        and (line["if_range"] is not None or line["again"])
        # Nobody reads on in another version than the one that is wanted.
        and line["outcome"] in ("200", "left")
        and line["version"] not in (None, given["version"])
    )
