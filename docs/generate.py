"""Write the files that list every option: the sample ini and the reference page.

``python docs/generate.py`` writes them, ``--check`` says which ones are out of date.

Imports: core.config.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from cachemw.core.config import FROM_PRESET, PREFIX, Option, Settings
from cachemw.core.presets import PRESETS

ROOT = Path(__file__).resolve().parents[1]

#: What a kind of value is measured in.
UNITS = {
    "size": "bytes, or with KiB, MiB, GiB or TiB",
    "duration": "seconds, or with s, m, h or d",
    "list of words": "words, separated by commas or lines",
}

SAMPLE_HEAD = f"""\
# Every option of the caching filter, commented out at its default.
#
# Sizes are bytes; K, M, G and T (also KiB, MiB, GiB, TiB) are powers of 1,024.
# Durations are seconds, or have s, m, h or d. Switches are yes or no.
# A comment has a line of its own; a percent sign is written twice.
#
# Where a default is "preset", the option preset decides it.
#
# Any of them may stand in [DEFAULT] with the prefix {PREFIX} instead, such as
# {PREFIX}dir, to be shared by several sections.
#
# Made from the table of options by docs/generate.py.

[filter:cache]
use = egg:cachemw#cache
"""

PAGE_HEAD = """\
.. Made from the table of options by docs/generate.py.

Options of the caching filter
=============================

They stand in the filter's section of a paste ini file, and are keyword arguments
of :class:`cachemw.CacheFilter` and :class:`cachemw.ImageCache`. In ``[DEFAULT]``
they have the prefix ``image_cache_`` (``image_cache_dir``), so that several sections
can share them; the filter's own section wins. ``cachemw serve --set
OPTION=VALUE`` takes them too.

An unknown option in the filter's section or a bad value stops the start, and the
message names the option, the value and what was expected. An unknown name with our
prefix in ``[DEFAULT]`` is only a warning, since other programs read that section.

Where the default is ``preset``, the option ``preset`` decides it:

{presets}

A **size** is a number of bytes, or has a unit: ``K``, ``M``, ``G`` or ``T``
(also ``KiB``, ``MiB``, ``GiB``, ``TiB``), all of them powers of 1,024. A
**duration** is a number of seconds, or has ``s``, ``m``, ``h`` or ``d``. A
**switch** takes ``yes`` or ``no``. In Python, numbers and ``True`` or ``False`` do
as well.
"""

SCOPES = {
    "storage": ("The cache directory", "Taken by ``ImageCache`` and by ``CacheFilter``."),
    "filter": (
        "The filter",
        "Taken by ``CacheFilter``, also when it is given an ``ImageCache``.",
    ),
    "manage": (
        "The management API",
        "Taken by :doc:`api`. ``CacheFilter`` takes it too, and has no use for it.",
    ),
}


def sample_ini(options: tuple[Option, ...]) -> str:
    """Give the text of ``etc/cachemw.ini.sample``."""
    return "\n".join([SAMPLE_HEAD, *(_sample(option) for option in options)])


def options_page(options: tuple[Option, ...]) -> str:
    """Give the text of ``docs/reference/options.rst``."""
    parts = [PAGE_HEAD.format(presets=_presets())]
    for scope, (title, text) in SCOPES.items():
        parts.append(f"{title}\n{'-' * len(title)}\n\n{text}\n")
        parts += [_entry(option) for option in options if option.scope == scope]
    return "\n".join(parts)


def files() -> dict[Path, str]:
    """Give every generated file and what it should hold."""
    options = Settings.options()
    return {
        ROOT / "etc" / "cachemw.ini.sample": sample_ini(options),
        ROOT / "docs" / "reference" / "options.rst": options_page(options),
    }


def _presets() -> str:
    """Give the table of what each preset decides."""
    names = [option.name for option in Settings.options() if option.default == FROM_PRESET]
    lines = []
    for name, preset in PRESETS.items():
        lines.append(f"``preset = {name}``")
        for option in names:
            words = getattr(preset, option).replace("\n", ", ").split(", ")
            text = ", ".join(f"``{word}``" for word in words if word) or "none"
            lines.append(f"    ``{option}``: {text}\n")
    return "\n".join(lines)


def _sample(option: Option) -> str:
    about = f"# {_sentence(option.doc)} ({_values(option)})\n"
    if option.default is None:
        return f"{about}# Required.\n{option.name} = /var/cache/cachemw\n"
    words = option.default.split(", ")
    if len(words) == 1:
        return f"{about}#{option.name} = {option.default}".rstrip() + "\n"
    return f"{about}#{option.name} =\n" + "".join(f"#    {word}\n" for word in words)


def _entry(option: Option) -> str:
    lines = [f".. confval:: {option.name}", f"   :type: {_unlinked(_values(option))}"]
    words = (option.default or "").split(", ")
    if option.default is None:
        lines.append("   :default: none: it is required")
    elif not option.default:
        lines.append("   :default: none")
    elif len(words) == 1:
        lines.append(f"   :default: ``{option.default}``")
    else:
        lines.append("   :default: see below")
    lines += ["", f"   {_sentence(option.doc)}", ""]
    if len(words) > 1:
        lines += ["   Its default::", "", *(f"      {word}" for word in words), ""]
    return "\n".join(lines)


def _values(option: Option) -> str:
    unit = UNITS.get(option.kind)
    return option.kind if unit is None else f"{option.kind}: {unit}"


def _unlinked(text: str) -> str:
    """Keep words with a colon in them from being taken for URLs."""
    return re.sub(r"(?<=\w):(?=\w)", r"\\:", text)


def _sentence(doc: str) -> str:
    return f"{doc[0].upper()}{doc[1:]}."


def main(arguments: list[str]) -> int:
    """Write the files, or check them. :return: exit status."""
    stale = [path for path, text in files().items() if _current(path) != text]
    for path in stale:
        if "--check" in arguments:
            print(f"{path.relative_to(ROOT)} is out of date", file=sys.stderr)
        else:
            path.write_text(files()[path], encoding="utf-8")
            print(path.relative_to(ROOT))
    return 1 if stale and "--check" in arguments else 0


def _current(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.exists() else None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
