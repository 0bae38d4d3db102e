"""Answers of the management API: JSON, errors too, with fields that keep browsers careful.

Imports: nothing of ours.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any

Headers = list[tuple[str, str]]

JSON = "application/json"

#: On every answer; the dashboard has a policy of its own.
_SAFE = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


@dataclasses.dataclass(slots=True)
class Answer:
    """An answer that can be sent once.

    :param body: all of it, or chunks.
    :param headers: beside those that every answer has, or in their place.
    """

    status: int = 200
    body: bytes | Iterable[bytes] = b""
    headers: dict[str, str] = dataclasses.field(default_factory=dict)

    def send(self, method: str, start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Send it, without the body for HEAD."""
        headers = {**_SAFE, **self.headers}
        if isinstance(self.body, bytes):
            if self.status != HTTPStatus.NO_CONTENT:
                headers["Content-Length"] = str(len(self.body))
            body: Iterable[bytes] = [self.body]
        else:
            body = self.body
        start_response(f"{self.status} {HTTPStatus(self.status).phrase}", list(headers.items()))
        return [] if method == "HEAD" else body


class Problem(Exception):
    """A request that cannot be met.

    :param status: of the answer.
    :param detail: one phrase for whoever asked.
    """

    def __init__(self, status: int, detail: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.headers = headers or {}

    def answer(self) -> Answer:
        """Give what is sent."""
        title = HTTPStatus(self.status).phrase
        error = {"code": self.status, "title": title, "detail": str(self)}
        return as_json({"error": error}, self.status, self.headers)


def as_json(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Answer:
    """Give a value as JSON; its text is ASCII, whatever is in an id."""
    body = json.dumps(value).encode("ascii") + b"\n"
    return Answer(status, body, {"Content-Type": JSON, **(headers or {})})
