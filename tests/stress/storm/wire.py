"""HTTP/1.1 as the storm's clients read it: cheap, and sure of where a body ends."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Coroutine, Mapping
from typing import Any

#: Seconds without a byte after which a request hangs for good.
PATIENCE = 60

_READ = 2**18


class Broken(Exception):
    """The connection ended too early."""


class Request:
    """One request on a connection of its own; an asynchronous context manager.

    :param fields: of the request, beside those that every request has.
    :ivar status: of the answer, once :meth:`read_head` returned; before that ``None``.
    :ivar headers: names in lower case.
    """

    def __init__(
        self, address: tuple[str, int], method: str, target: str, fields: Mapping[str, str]
    ) -> None:
        self.status: int | None = None
        self.headers: dict[str, str] = {}
        self._address = address
        self._method = method
        lines = [f"{method} {target} HTTP/1.1", "Host: storm", "Connection: close"]
        lines += [f"{name}: {value}" for name, value in fields.items()]
        self.fields = fields
        self._head = "\r\n".join([*lines, "", ""]).encode("latin-1")

    async def __aenter__(self) -> Request:
        try:
            self._reader, self._writer = await asyncio.open_connection(*self._address, limit=_READ)
        except OSError as exc:
            raise Broken(f"no connection: {exc}") from exc
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()

    async def read_head(self) -> int:
        """Send the request and read status and fields.

        :raises Broken: there was not so much.
        :raises TimeoutError: nothing came for too long, as from everything that reads.
        """
        try:
            self._writer.write(self._head)
            head = await self._wait(self._reader.readuntil(b"\r\n\r\n"))
        except (OSError, asyncio.IncompleteReadError) as exc:
            raise Broken(f"no whole head: {exc}") from exc
        line, *lines = head.decode("latin-1").rstrip("\r\n").split("\r\n")
        for text in lines:
            name, _, value = text.partition(":")
            self.headers[name.strip().lower()] = value.strip()
        self.status = int(line.split(" ")[1])
        return self.status

    async def body(self) -> AsyncIterator[bytes]:
        """Give the body's bytes as they come, without framing, up to its proper end.

        :raises Broken: it ended before.
        """
        if self._method == "HEAD" or self.status in (204, 304):
            return
        try:
            if self.headers.get("transfer-encoding") == "chunked":
                async for data in self._chunks():
                    yield data
            else:
                async for data in self._exactly(int(self.headers["content-length"])):
                    yield data
        except (OSError, ValueError, asyncio.IncompleteReadError) as exc:
            raise Broken(f"in the body: {exc}") from exc

    def described(self) -> str:
        """Say in short what was asked and what came."""
        came = {name: value[:80] for name, value in self.headers.items()}
        return f"status {self.status}, {came} for {self.fields}"

    def leave(self) -> None:
        """End the connection with a reset."""
        sock = self._writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()

    async def _chunks(self) -> AsyncIterator[bytes]:
        size = -1
        while size:
            size = int(await self._wait(self._reader.readuntil(b"\r\n")), 16)
            async for data in self._exactly(size):
                yield data
            if await self._wait(self._reader.readexactly(2)) != b"\r\n":
                raise Broken("a chunk does not end")

    async def _exactly(self, size: int) -> AsyncIterator[bytes]:
        while size:
            data = await self._wait(self._reader.read(min(size, _READ)))
            if not data:
                raise Broken(f"{size} bytes are missing")
            size -= len(data)
            yield data

    async def _wait(self, coming: Coroutine[Any, Any, bytes]) -> bytes:
        async with asyncio.timeout(PATIENCE):
            return await coming
