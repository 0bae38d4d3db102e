"""Put the fragments of ``changes.d/`` at the top of ``CHANGES.rst``, and remove them.

``python docs/collect_changes.py 0.1.0 2026-12-01``

Imports: nothing of ours.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

#: The kinds of fragments, in the order of their headings.
KINDS = ("security", "removed", "changed", "added", "fixed")

PENDING = "Not released yet: see the fragments in ``changes.d/``.\n"


def section(version: str, date: str, fragments: Mapping[str, Sequence[str]]) -> str:
    """Write one release's section.

    :param fragments: paragraphs by kind.
    """
    title = f"{version} ({date})"
    parts = [f"{title}\n{'-' * len(title)}\n"]
    for kind in KINDS:
        if fragments.get(kind):
            parts.append(f"**{kind.capitalize()}**\n")
            parts += [_bullet(text) for text in fragments[kind]]
    return "\n".join(parts)


def read_fragments(paths: Sequence[Path]) -> dict[str, list[str]]:
    """Read fragments by kind.

    :raises ValueError: names a file of no known kind.
    """
    fragments: dict[str, list[str]] = {}
    for path in paths:
        kind = path.name.split(".")[-2]
        if kind not in KINDS:
            raise ValueError(f"{path.name}: expected +TOPIC.KIND.rst with one of {KINDS}")
        fragments.setdefault(kind, []).append(path.read_text(encoding="utf-8"))
    return fragments


def main(version: str, date: str) -> None:
    """Collect the fragments of a release."""
    paths = sorted((ROOT / "changes.d").glob("+*.rst"))
    changes = ROOT / "CHANGES.rst"
    head, pending, older = changes.read_text(encoding="utf-8").partition(PENDING)
    if not pending:
        raise ValueError(f"CHANGES.rst lacks the line {PENDING!r}")
    new = section(version, date, read_fragments(paths))
    changes.write_text(f"{head}{pending}\n\n{new}{older}", encoding="utf-8")
    for path in paths:
        path.unlink()


def _bullet(text: str) -> str:
    first, *rest = text.strip().splitlines()
    return "\n".join([f"* {first}", *(f"  {line}" if line else "" for line in rest)]) + "\n"


if __name__ == "__main__":
    main(*sys.argv[1:])
