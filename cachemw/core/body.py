"""The app's answer to whoever leads a fill: read by any thread, in the leader's context.

Imports: drivers.base.
"""

from __future__ import annotations

import contextvars
from collections.abc import Iterable, Iterator

from ..drivers.base import Part

#: What an app's iterable may give: bytes, or a part that the sink has already.
Chunk = bytes | Part


class Body:
    """An app's iterable. For one thread at a time; made where the leader's context is."""

    def __init__(self) -> None:
        self._source: Iterable[Chunk] = ()
        self._chunks: Iterator[Chunk] | None = None
        self._context = contextvars.copy_context()

    def begin(self, source: Iterable[Chunk]) -> None:
        """Read this one."""
        self._source = source

    def next_chunk(self) -> Chunk | None:
        """Get the next chunk that is not empty, or ``None`` at the end.

        :raises Exception: whatever the app raises.
        """
        if self._chunks is None:
            self._chunks = self._context.run(iter, self._source)
        # Not by ``for``: it would call the iterator's own ``__iter__`` for each chunk.
        while (chunk := self._context.run(next, self._chunks, None)) is not None:
            if chunk:
                # Others are no bytes for WSGI, but many servers take them; and they may change.
                return chunk if isinstance(chunk, bytes | Part) else bytes(memoryview(chunk))
        return None

    def close(self) -> None:
        """Close it; a second close does nothing.

        :raises Exception: whatever the app raises.
        """
        source, self._source = self._source, ()
        self._chunks = None
        close = getattr(source, "close", None)
        if close is not None:
            self._context.run(close)
