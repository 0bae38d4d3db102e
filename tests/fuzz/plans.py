"""What one step of a generated run does: the client's side and the app's."""

from __future__ import annotations

import dataclasses
import enum

#: A request field of this value gets the ETag that the client saw last.
LAST_TAG = "the last ETag"


class Kind(enum.Enum):
    """How the app answers, within PEP 3333 but for the last three."""

    LIST = "a list"
    ITERATOR = "an object with __next__ and close"
    LATE = "a generator that calls start_response with its first chunk"
    FILE = "a file in wsgi.file_wrapper, where there is one"
    WRITE = "a part through the callable that start_response gives"
    RESTART_EARLY = "start_response again, with exc_info, before the body"
    RESTART_LATE = "start_response again, with exc_info, in the body"
    RAISE = "an exception before start_response"
    TWICE = "start_response again, without exc_info"
    NEVER = "a body without start_response"


class Length(enum.Enum):
    """What Content-Length says."""

    RIGHT = "right"
    NONE = "none"
    SHORT = "less than there is"
    LONG = "more than there is"
    DOUBLE = "right, twice"
    TWO = "right and wrong"
    GARBAGE = "no number"


class Reading(enum.Enum):
    """What the client does with the body."""

    WHOLE = "reads it"
    PART = "leaves after the first chunk"
    NOTHING = "leaves before it"
    LATER = "reads the rest before the last step begins"


@dataclasses.dataclass(frozen=True)
class Plan:
    """One answer of the app.

    :param control: directives of Cache-Control that the model understands.
    :param raw_control: another Cache-Control, which it does not.
    :param fields: more fields.
    :param size: of the body, in bytes.
    :param chunks: into how many the body is cut.
    :param tag: how the ETag is made: ``strong``, ``weak``, ``constant``, ``garbage``.
    :param md5: Content-MD5: ``right``, ``wrong`` or none.
    :param vary: names in Vary.
    :param fails: number of the chunk in whose place the app raises.
    :param mutations: what the app does to its environ; ``None`` removes.
    """

    kind: Kind = Kind.LIST
    status: str = "200 OK"
    content_type: str | None = "image/png"
    control: tuple[str, ...] = ()
    raw_control: str | None = None
    fields: tuple[tuple[str, str], ...] = ()
    expires_in: int | None = None
    dated: int | None = None
    modified: int | None = None
    length: Length = Length.RIGHT
    size: int = 100
    chunks: int = 1
    tag: str | None = None
    md5: str | None = None
    vary: tuple[str, ...] = ()
    fails: int | None = None
    new_version: bool = False
    mutations: tuple[tuple[str, str | None], ...] = ()


@dataclasses.dataclass(frozen=True)
class Step:
    """One request.

    :param place: which of the run's targets it is for.
    :param twist: how the same text is put otherwise: see ``oracle.environ_of``.
    :param control: directives of Cache-Control that the model understands.
    :param fields: request fields, by environ key.
    :param advance: seconds that pass before it.
    :param plan: what the app answers if it is asked.
    """

    method: str = "GET"
    place: int = 0
    twist: str = ""
    control: tuple[str, ...] = ()
    fields: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    advance: int = 0
    wrapper: bool = False
    reading: Reading = Reading.WHOLE
    plan: Plan = Plan()


@dataclasses.dataclass(frozen=True)
class Run:
    """Some requests to a few targets.

    :param targets: path behind the run's own prefix, and query.
    """

    targets: tuple[tuple[str, str], ...]
    steps: tuple[Step, ...]
