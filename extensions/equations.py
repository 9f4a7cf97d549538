"""Equations as MathML, which browsers draw themselves: no script, no other host, readable aloud."""

import functools
import html
import xml.etree.ElementTree as etree

from latex2mathml.converter import convert
from markdown import Markdown
from markdown.extensions import Extension
from markdown.treeprocessors import Treeprocessor
from pymdownx.arithmatex import ArithmatexExtension

from . import PageError


@functools.lru_cache(maxsize=4096)
def _mathml(latex: str, display: str) -> str:
    try:
        mathml = convert(latex, display=display)
    except Exception as error:  # latex2mathml raises many kinds
        raise PageError(f"This equation is not LaTeX that can be set: {latex} ({error!r})") from None
    # A long equation scrolls in itself on a small screen; this makes it reachable by keyboard.
    return mathml.replace("<math ", '<math tabindex="0" ', 1) if display == "block" else mathml


class _ToMathML(Treeprocessor):
    """Replaces what arithmatex has found (`\\(...\\)`, `\\[...\\]`) by MathML."""

    def run(self, root: etree.Element) -> None:
        for element in root.iter():
            if "arithmatex" not in element.get("class", "").split():
                continue
            text = html.unescape("".join(element.itertext()))  # arithmatex has escaped `&` and `<`
            display = "block" if text.startswith("\\[") else "inline"
            latex = text[2:-2].strip()
            for child in list(element):
                element.remove(child)
            element.text = self.md.htmlStash.store(_mathml(latex, display))


class EquationExtension(Extension):
    """`$x$` and `$$x$$`, found by pymdownx.arithmatex, become MathML."""

    def extendMarkdown(self, md: Markdown) -> None:
        """Hook into Markdown."""
        ArithmatexExtension(generic=True).extendMarkdown(md)
        md.treeprocessors.register(_ToMathML(md), "mathml", 1)  # after inline patterns, before links


def makeExtension(**kwargs: object) -> EquationExtension:
    """For Markdown's loader."""
    return EquationExtension(**kwargs)
