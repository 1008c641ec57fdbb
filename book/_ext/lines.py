"""Give each line of code its own element, so that a long line can wrap with a hanging indent on a narrow screen."""

from __future__ import annotations

from collections.abc import Iterator

from pygments.formatters import HtmlFormatter
from sphinx.highlighting import PygmentsBridge

Source = Iterator[tuple[int, str]]


class LineFormatter(HtmlFormatter):
    """Pygments' HTML, with ``<span class="line" style="--indent:4">`` around a line that begins with four spaces."""

    def wrap(self, source: Source) -> Source:
        return super().wrap(map(_element, source))


def _element(part: tuple[int, str]) -> tuple[int, str]:
    is_code, text = part
    plain = text.removeprefix('<span class="w">')  # how the lexers of some languages mark leading spaces
    return is_code, f'<span class="line" style="--indent:{len(plain) - len(plain.lstrip(" "))}">{text}</span>'


def setup(app):
    """Register with Sphinx."""
    PygmentsBridge.html_formatter = LineFormatter
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
