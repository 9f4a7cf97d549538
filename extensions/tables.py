"""Tables scroll in themselves on a small screen, also by keyboard: ours, and those written in Markdown."""

import xml.etree.ElementTree as etree

from markdown import Markdown
from markdown.extensions import Extension
from markdown.treeprocessors import Treeprocessor


def table(
    label: str, name: str, heads: list[str], rows: list[list[str]], classes: list[str] | None = None
) -> str:
    """HTML of a table, as Material draws its own.

    Args:
        label: what the table is, for screen readers.
        name: a class for its style.
        heads: the column heads, as text.
        rows: the cells, as HTML.
        classes: the class of each row, if they have any.
    """
    head = "".join(f'<th scope="col">{text}</th>' for text in heads)
    starts = [f'<tr class="{kind}">' for kind in classes] if classes else ["<tr>"] * len(rows)
    body = "".join(
        start + "".join(_cell(name, *one) for one in zip(heads, row, strict=True)) + "</tr>"
        for start, row in zip(starts, rows, strict=True)
    )
    return (
        f'<div class="md-typeset__scrollwrap {name}" tabindex="0" role="region" aria-label="{label}">'
        f'<div class="md-typeset__table"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div></div>"
    )


STACKED = ("settings", "algorithms")  # whose cells stand one below the other on a phone, by their style


def _cell(name: str, head: str, text: str) -> str:
    return f'<td data-head="{head}">{text}</td>' if name in STACKED else f"<td>{text}</td>"


class _Reachable(Treeprocessor):
    """Makes tables reachable by keyboard; those with a link are anyway."""

    def run(self, root: etree.Element) -> None:
        for element in root.iter("table"):
            if element.find(".//a") is None:
                element.set("tabindex", "0")


class TableExtension(Extension):
    """Material lets a wide table scroll; this lets a reader without a mouse do it."""

    def extendMarkdown(self, md: Markdown) -> None:
        """Hook into Markdown."""
        md.treeprocessors.register(_Reachable(md), "reachable-tables", 1)  # after inline patterns


def makeExtension(**kwargs: object) -> TableExtension:
    """For Markdown's loader."""
    return TableExtension(**kwargs)
