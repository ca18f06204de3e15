"""A matplotlib figure as SVG inside a page: its colours follow the page's, and it can be read aloud."""

from __future__ import annotations

import io
import re
from typing import Any
from xml.etree import ElementTree

from axtrain.noise_models import picture_style as style

_XLINK = "{http://www.w3.org/1999/xlink}href"
_REFERENCE = re.compile(r"url\(#|^#")
# The palette's colours become the page's variables, which are other ones on dark paper.
_VARIABLES = {
    colour: f"var(--{name})"
    for name, colour in (
        ("ink", style.INK),
        ("ink", "#000000"),
        ("muted", style.MUTED),
        ("line", style.GRID),
        ("paper", style.PAPER),
        ("blue", style.BLUE),
        ("sky", style.SKY),
        ("green", style.GREEN),
        ("orange", style.ORANGE),
        ("vermillion", style.VERMILLION),
        ("purple", style.PURPLE),
        ("silver", style.SILVER),
        ("amber", style.AMBER),
    )
}


def inline_svg(figure: Any, number: int, words: str) -> str:
    """The figure as an `<svg>` element for HTML.

    Letters are drawn as paths, so that it looks the same everywhere.

    Args:
        figure: a matplotlib `Figure`.
        number: different for each figure of a page: its ids begin with it.
        words: what it shows, for those who do not see it.
    """
    written = io.BytesIO()
    metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(written, format="svg", transparent=True, metadata=metadata)
    root = ElementTree.fromstring(written.getvalue())  # comments are left out by this parser
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag.endswith(("}metadata", "}style")):
                parent.remove(child)
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        element.attrib = {_named(key): _coloured(_numbered(key, value, number)) for key, value in element.items()}
    for size in ("width", "height"):
        del root.attrib[size]
    root.attrib |= {"role": "img", "aria-label": words}
    return ElementTree.tostring(root, encoding="unicode")


def _named(key: str) -> str:
    return "href" if key == _XLINK else key.rpartition("}")[2]


def _numbered(key: str, value: str, number: int) -> str:
    if key == "id":
        return f"f{number}-{value}"
    return _REFERENCE.sub(lambda found: f"{found[0]}f{number}-", value) if not value.startswith("data:") else value


def _coloured(value: str) -> str:
    for colour, variable in _VARIABLES.items():
        value = value.replace(colour, variable)
    return value
