"""The commands that the README tells people to paste.

``python docs/readme_commands.py 2`` prints the second code block of the README.

Imports: nothing of ours.
"""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path

README = Path(__file__).resolve().parents[1] / "README.rst"


def code_blocks(text: str) -> list[str]:
    """Give the ``code-block`` directives of a reStructuredText file, without indentation."""
    blocks = []
    lines = iter(text.splitlines())
    line = next(lines, None)
    while line is not None:
        following = next(lines, None)
        if line.startswith(".. code-block::"):
            block = []
            while following is not None and (not following or following.startswith(" ")):
                block.append(following)
                following = next(lines, None)
            blocks.append(textwrap.dedent("\n".join(block)).strip())
        line = following
    return blocks


if __name__ == "__main__":
    print(code_blocks(README.read_text(encoding="utf-8"))[int(sys.argv[1]) - 1])
