"""Every exception cachemw raises on purpose::

    CacheMwError
    |- ConfigError                an option is unknown, missing or malformed
    |  `- BadDriverConfiguration  a driver cannot work where it was put
    |                                              .driver .directory .mend
    |- DriverError                a driver could not finish .image_id .reason
    |  |- ImageNotFound           nothing complete under that id
    |  |- ImageCorrupt            stored bytes do not match their record
    |  |- FillUnderWay            somebody else is filling it
    |  |- NotFetchable            nothing says which request fetches it
    |  `- CacheFull               no room: ENOSPC, EDQUOT or our own limit
    |- FillError                  an image arrived wrong    .image_id .reason
    |  |- ChecksumMismatch        its bytes are not the promised ones
    |  `- LengthMismatch          there are more or fewer than promised
    |- UpstreamFailed             a server behind the proxy gave no usable answer
    |  `- UpstreamTimeout         it took too long
    |- RequestFailed              a request cannot be passed on to it
    |- LockTimeout                somebody else kept a lock for too long
    `- StoreError                 a shared store could not answer

Imports: nothing of ours.
"""

from __future__ import annotations

__all__ = [
    "BadDriverConfiguration",
    "CacheFull",
    "CacheMwError",
    "ChecksumMismatch",
    "ConfigError",
    "DriverError",
    "FillError",
    "FillUnderWay",
    "ImageCorrupt",
    "ImageNotFound",
    "LengthMismatch",
    "LockTimeout",
    "NotFetchable",
    "RequestFailed",
    "StoreError",
    "UpstreamFailed",
    "UpstreamTimeout",
]


class CacheMwError(Exception):
    """The root: catching it catches all of ours and nothing else."""


class ConfigError(CacheMwError):
    """An option is unknown, missing or malformed; the message says which and how to mend it."""


class BadDriverConfiguration(ConfigError):
    """A storage driver cannot work with its directory.

    :param driver: the driver's name, such as ``"xattr"``.
    :param directory: the cache directory it was given.
    :param reason: what is wrong, one lower-case phrase.
    :param mend: what the operator can do about it, one phrase.
    """

    def __init__(self, driver: str, directory: str, reason: str, mend: str) -> None:
        super().__init__(f"driver {driver!r} cannot use {directory!r}: {reason}; {mend}")
        self.driver = driver
        self.directory = directory
        self.reason = reason
        self.mend = mend

    def __reduce__(self) -> tuple[type, tuple[str, ...]]:
        return type(self), (self.driver, self.directory, self.reason, self.mend)


class _AboutImage(CacheMwError):
    """An error about one image.

    :param image_id: the image.
    :param reason: one lower-case phrase an operator can act on.
    """

    def __init__(self, image_id: str, reason: str) -> None:
        super().__init__(f"{image_id}: {reason}")
        self.image_id = image_id
        self.reason = reason

    def __reduce__(self) -> tuple[type, tuple[str, ...]]:
        return type(self), (self.image_id, self.reason)


class DriverError(_AboutImage):
    """A storage driver could not finish an operation on one image."""


class ImageNotFound(DriverError):
    """Nothing complete is stored under that id."""


class ImageCorrupt(DriverError):
    """The stored bytes do not match their record."""


class FillUnderWay(DriverError):
    """A living writer, here or in another process, is filling the image."""


class NotFetchable(DriverError):
    """Neither the image's id nor a request that named it says how to fetch it."""


class CacheFull(DriverError):
    """There is no room for the image: the disk is full, or our own limit is reached."""


class FillError(_AboutImage):
    """An image arrived from the app in a form that must not be completed or kept."""


class ChecksumMismatch(FillError):
    """The bytes that arrived do not have the checksum that was promised for them."""


class LengthMismatch(FillError):
    """More or fewer bytes arrived than were promised."""


class UpstreamFailed(CacheMwError):
    """The upstream could not be reached, broke off, or did not speak HTTP."""


class UpstreamTimeout(UpstreamFailed):
    """The upstream kept us waiting for too long."""


class RequestFailed(CacheMwError):
    """The client's own request could not be sent on: it is malformed or ended early."""


class LockTimeout(CacheMwError):
    """Somebody else kept a lock for longer than the caller would wait."""


class StoreError(CacheMwError):
    """A shared store could not answer."""
