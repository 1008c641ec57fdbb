"""Make the built book self-contained: local plotly.js where a page draws a figure, and no thebe."""

from __future__ import annotations

import shutil
from pathlib import Path

PLOTLY = "_static/plotly.min.js"


def adjust_scripts(app, pagename, templatename, context, doctree):
    """Drop thebe's scripts, which call another host, and add plotly.js to pages with a plotly figure."""

    def source(script) -> str:
        return str(getattr(script, "filename", None) or "") + str(getattr(script, "attributes", ""))

    context["script_files"] = [s for s in context["script_files"] if "thebe" not in source(s).lower()]
    if "plotly-graph-div" in context.get("body", ""):
        app.add_js_file("plotly.min.js", priority=100)


def copy_plotly(app, exception):
    """Take plotly.js from the installed package."""
    if exception is None and app.builder.format == "html":
        import plotly

        script = Path(plotly.__file__).parent / "package_data" / "plotly.min.js"
        shutil.copy(script, Path(app.outdir) / PLOTLY)


def setup(app):
    """Register with Sphinx."""
    app.connect("html-page-context", adjust_scripts, priority=900)
    app.connect("build-finished", copy_plotly)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
