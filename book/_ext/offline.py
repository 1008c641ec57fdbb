"""Make the built book self-contained: local plotly.js where a page draws a figure, no thebe, no font requests."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

SECTIONS = "Show or hide the pages of this section"


def adjust_scripts(app, pagename, templatename, context, doctree):
    """Drop thebe's scripts, which call another host, and add plotly.js to pages with a plotly figure."""
    if "plotly-graph-div" in context.get("body", ""):
        app.add_js_file("plotly.min.js", priority=100)
    # In place: the list is the builder's own, to which the line above has added.
    context["script_files"][:] = [s for s in context["script_files"] if "thebe" not in _describe(s)]


def _describe(script) -> str:
    return f"{getattr(script, 'filename', '')} {getattr(script, 'attributes', '')}".lower()


def finish(app, exception):
    """Take plotly.js from the installed package; remove thebe's settings, and preloads of fonts, refused over file://; give
    screen readers what the theme leaves out."""
    if exception is not None or app.builder.format != "html":
        return
    import plotly

    out = Path(app.outdir)
    shutil.copy(Path(plotly.__file__).parent / "package_data" / "plotly.min.js", out / "_static" / "plotly.min.js")
    unwanted = re.compile(r'<link rel="preload" as="font"[^>]*>|<script type="text/x-thebe-config">.*?</script>', re.DOTALL)
    for page in out.rglob("*.html"):
        text = unwanted.sub("", page.read_text(encoding="utf-8"))
        text = text.replace(
            '<summary><span class="toctree-toggle"', f'<summary aria-label="{SECTIONS}"><span class="toctree-toggle"'
        )
        text = text.replace(
            '<div role="list" class="citation-list">', '<div class="citation-list">'
        )  # its children are no items
        # A table that scrolls must be reached by the keyboard.
        text = text.replace(
            '<div class="pst-scrollable-table-container">', '<div class="pst-scrollable-table-container" tabindex="0">'
        )
        page.write_text(text, encoding="utf-8")


def setup(app):
    """Register with Sphinx."""
    app.connect("html-page-context", adjust_scripts, priority=900)
    app.connect("build-finished", finish)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
