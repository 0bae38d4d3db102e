"""Standard output and error as a terminal, without one."""

import io


class Terminal(io.StringIO):
    """Keeps what is printed to it."""

    def isatty(self):
        return True


def without_rich(monkeypatch):
    """Have ``rich`` not installed."""
    from cachemw.commands import _output

    monkeypatch.setattr(_output, "rich", lambda module: None)
