"""What a page is made of: sections with words, tables and pictures."""

from __future__ import annotations

import base64
import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from markupsafe import Markup

from axtrain.training.report.svg import inline_svg

PAGE_WIDTH = 4.7  # inches of a picture: letters stay legible on a phone
_NUMBER = re.compile(r"-|[-+\d.,e]+( to [-+\d.,e]+)?|-?(nan|inf)")


@dataclass(frozen=True)
class Headline:
    """A large number: the figure, its unit, and what it is."""

    figure: str
    unit: str
    words: str


@dataclass(frozen=True)
class Table:
    """Rows of texts."""

    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    caption: str

    @property
    def numeric(self) -> tuple[bool, ...]:
        """For each column whether it holds numbers, which stand to the right."""
        return tuple(all(_NUMBER.fullmatch(row[index]) for row in self.rows) for index in range(len(self.columns)))


@dataclass(frozen=True)
class Picture:
    """Markup of a picture, and its caption."""

    markup: Markup
    caption: str


@dataclass
class Section:
    """A heading and what follows it."""

    title: str
    headlines: list[Headline] = field(default_factory=list)
    words: list[str] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def anchor(self) -> str:
        """Of the heading, within the page."""
        return "-".join(self.title.lower().split())


class Pictures:
    """Makes pictures, each with ids of its own."""

    def __init__(self) -> None:
        self._numbers = itertools.count()

    def drawn(self, figure: Any, words: str) -> Picture:
        """A matplotlib figure; `words` say what it shows."""
        return Picture(Markup(inline_svg(figure, next(self._numbers), words)), words)

    def kept(self, png: bytes, name: str) -> Picture:
        """A PNG file that the run left."""
        data = base64.b64encode(png).decode()
        markup = Markup('<img class="kept" src="data:image/png;base64,{}" alt="{}">').format(data, f"picture {name}")
        return Picture(markup, f"{name}.png")
