"""Draws Mermaid at build time: an inline SVG that needs no script and follows light and dark."""

import functools
import hashlib
import json
import re
from importlib.metadata import version
from pathlib import Path

import material

from . import PageError
from .cache import ROOT, drawn
from .records import record_of

# Mermaid takes half a CPU second for each, so the diagrams are committed as drawn; `make diagrams` does that.
FOLDER = ROOT / "diagrams"
shown: dict[Path, str] = {}  # the drawings that pages have asked for in this process


@functools.cache
def _theme_css() -> str:
    """Material's own style for Mermaid, so that diagrams look like the rest of the site.

    Material keeps it as a string in its script, which would otherwise load Mermaid from another host.
    """
    scripts = Path(material.__file__).parent / "templates" / "assets" / "javascripts"
    for script in scripts.glob("bundle.*.min.js"):
        if match := re.search(
            r'"(\.node circle,[^"]*--md-mermaid[^"]*)"', script.read_text(encoding="utf-8")
        ):
            return match[1]
    raise PageError("Material for MkDocs no longer carries a Mermaid style; see extensions/diagrams.py.")


@functools.cache
def _config() -> dict:
    # Tight spacing keeps the text readable where a phone scales the picture down.
    flowchart = {
        "nodeSpacing": 18,
        "rankSpacing": 28,
        "padding": 10,
        "wrappingWidth": 420,  # the sources break their lines themselves
        "diagramPadding": 14,
        "subGraphTitleMargin": {"top": 4, "bottom": 12},
    }
    sequence = {
        "actorMargin": 14,
        "width": 92,
        "height": 40,
        "boxMargin": 6,
        "noteMargin": 6,
        "messageMargin": 26,
    }
    # Without a seed, Mermaid draws the lines of a class diagram a little differently each time.
    return {"themeCSS": _theme_css(), "flowchart": flowchart, "sequence": sequence, "handDrawnSeed": 1}


def draw(source: str) -> str:
    """What Mermaid makes of a diagram's source.

    Raises:
        PageError: Mermaid cannot draw it.
    """
    import mermaidx  # only here: most builds find every diagram drawn

    try:
        return mermaidx.render(source, config=_config()).svg()
    except Exception as error:  # mermaidx passes on whatever Mermaid throws
        raise PageError(f"Mermaid cannot draw this diagram: {error}\n{source}") from None


def file_of(source: str) -> Path:
    """Where a diagram stands drawn, if it does: named by the hash of all that it is drawn from."""
    made_from = json.dumps([version("mermaidx"), _config(), source])
    return FOLDER / f"{hashlib.sha256(made_from.encode()).hexdigest()[:16]}.svg"


def _drawn(source: str) -> str:
    file = file_of(source)
    if file.is_file():
        svg = file.read_text(encoding="utf-8")
    else:  # an edited diagram, until `make diagrams` keeps it
        svg = drawn("mermaid", file.name, lambda: draw(source))
    shown[file] = svg
    return svg


def _inline(source: str, md) -> str:
    for needed in ("accTitle", "accDescr"):
        if needed not in source:
            raise PageError(f"A diagram has no {needed}, its text for those who cannot see it:\n{source}")
    name = "diagram-" + hashlib.sha256(source.encode()).hexdigest()[:8]
    svg = _drawn(source).replace("my-svg", name).replace("xlink:href", "href")
    svg = re.sub(r"<\?xml[^>]*\?>", "", svg).replace("\n", " ")
    if "relpath" in md.treeprocessors:  # MkDocs, which knows where the page's links lead
        resolve = md.treeprocessors["relpath"].path_to_url
        svg = re.sub(r'href="([^"#][^"]*)"', lambda match: f'href="{resolve(match[1])}"', svg)
    # A wide picture scrolls in itself on a phone instead of shrinking until nobody can read it.
    width = float(re.search(r'viewBox="[-\d.]+ [-\d.]+ ([\d.]+)', svg)[1])
    wide = f' style="--least: {min(width, 0.75 * width):.0f}px" tabindex="0"' if width > 560 else ""
    return f'<div class="diagram"{wide}>{svg}</div>'


def formatter(source: str, language: str, css_class: str, options: dict, md, **kwargs) -> str:
    """A superfences formatter for `mermaid` fences.

    Every diagram needs `accTitle` and `accDescr`, its text for those who cannot see it. A link in a
    diagram (`click node href "page.md"`) is resolved and checked as MkDocs does it for other links.

    Raises:
        PageError: the diagram has no text alternative, or Mermaid cannot draw it.
    """
    return _inline(source, md)


def recorded(source: str, language: str, css_class: str, options: dict, md, **kwargs) -> str:
    """A `recorded-diagram` fence: an example, and which of the diagrams it printed to show (1 if left out).

    Raises:
        PageError: there is no such record, or it holds no such diagram.
    """
    example, _, number = source.strip().partition(" ")
    diagrams = record_of(example).output.strip().split("\n\n")
    try:
        return _inline(diagrams[int(number or 1) - 1], md)
    except (ValueError, IndexError):
        raise PageError(
            f"The record of {example} holds {len(diagrams)} diagrams; there is no {number}."
        ) from None
