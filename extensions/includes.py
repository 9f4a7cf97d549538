"""`--8<-- "examples/ppo.py"`: pymdownx.snippets, in which each line knows the file that it came from.

So whatever goes wrong on a page can be named by file and line, by the builder and by the tests alike.
"""

from __future__ import annotations

import html
import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from markdown import Markdown
from pymdownx.snippets import SnippetExtension, SnippetMissingError, SnippetPreprocessor

from . import PageError
from .cache import ROOT


@dataclass(frozen=True)
class Origin:
    """Where a line stands that a writer may edit."""

    file: Path
    line: int

    def within(self, root: Path) -> str:
        """`docs/index.md:12`."""
        file = self.file
        return f"{file.relative_to(root) if file.is_relative_to(root) else file}:{self.line}"


class Line(str):
    """A line that remembers its origin through the indentation that an include adds."""

    origin: Origin

    def __new__(cls, text: str, origin: Origin) -> Line:
        """A line of text that stands at `origin`."""
        line = super().__new__(cls, text)
        line.origin = origin
        return line

    def __radd__(self, indent: str) -> Line:
        return Line(str.__add__(indent, self), self.origin)


class Includes(SnippetPreprocessor):
    """Puts each include in its place.

    Args:
        config: the options of pymdownx.snippets.
        md: the converter.
        root: the folder from which files are named in messages.
    """

    def __init__(self, config: dict, md: Markdown, root: Path = ROOT):
        super().__init__(config, md)
        self.md = md
        self.root = root
        self.lines: list[Line] = []
        """The page as it was last expanded."""

    def read_lines(self, path: str) -> list[str]:
        """The lines of an included file."""
        file = Path(path)
        return [Line(text, Origin(file, n)) for n, text in enumerate(super().read_lines(path), 1)]

    def dedent(self, lines: list[str]) -> list[str]:
        """Take away the indentation that the lines have in common."""
        texts = textwrap.dedent("\n".join(lines)).split("\n") if lines else []
        return [
            Line(text, line.origin) if isinstance(line, Line) else text
            for text, line in zip(texts, lines, strict=True)
        ]

    def parse_snippets(self, lines: list[str], *args, **kwargs) -> list[str]:
        """Expand the includes in `lines`; those in the form of a block are refused.

        An unclosed block takes the rest of the page for paths, and the instructions for the tests with it.
        """
        for line in lines:
            include = self.RE_ALL_SNIPPETS.match(line)
            if isinstance(line, Line) and include and include["block_marker"] and not include["escape"]:
                raise PageError(
                    f"{line.origin.within(self.root)}: "
                    'write an include on one line, with the path behind the sign: --8<-- "examples/x.py".'
                )
        return super().parse_snippets(lines, *args, **kwargs)

    def expand(self, page: Path, texts: list[str]) -> list[Line]:
        """The lines `texts` of `page`, its last ones if it has more, with every include in its place.

        Raises:
            PageError: an include is missing, cannot be read or is written as a block.
        """
        # MkDocs has cut off the description at the top of the page.
        cut = page.read_text(encoding="utf-8-sig").count("\n") + 1 - len(texts) if page.is_file() else 0
        numbered = [Line(text, Origin(page, number)) for number, text in enumerate(texts, max(cut, 0) + 1)]
        appended = "\n\n-8<-\n{}\n-8<-\n".format("\n\n".join(self.auto_append)).split("\n")
        self.seen, self.bases, self.failed = set(), None, set()
        try:
            lines = self.parse_snippets(numbered + (appended if self.auto_append else []))
        except (SnippetMissingError, OSError, UnicodeDecodeError) as error:
            # The error names the path or section at most, not the line that asks for it.
            named = re.search(r"'([^']*)'", str(error))
            asks = [line for line in numbered if "8<" in line]
            places = [line for line in asks if named and named[1] in line] or asks or numbered
            raise PageError(f"{places[0].origin.within(self.root)}: {error}.") from None
        self.lines = []
        for line in lines:
            if not isinstance(line, Line):  # an escaped include, which pymdownx has rewritten
                line = Line(line, self.lines[-1].origin if self.lines else Origin(page, 1))
            self.lines.append(line)
        return self.lines

    def run(self, lines: list[str]) -> list[str]:
        """For Markdown."""
        return list(self.expand(self._page(), lines))

    def _page(self) -> Path:
        if "relpath" in self.md.treeprocessors:  # MkDocs, which knows the page's file
            return Path(self.md.treeprocessors["relpath"].file.abs_src_path)
        return Path("page")

    def place(self, texts: Sequence[str], number: int = 0) -> str:
        """Where something stands that was found on the page: `docs/index.md:12`.

        Args:
            texts: parts of its line; the first that stands somewhere counts, else the words of the first.
            number: how often it stands on the page before the place that is meant.
        """
        for text in texts:
            if found := [line for line in self.lines if text in line or text in html.unescape(line)]:
                return found[min(number, len(found) - 1)].origin.within(self.root)
        words = set(re.findall(r"\w+", texts[0]))
        best = max(self.lines, key=lambda line: len(words.intersection(re.findall(r"\w+", line))))
        return best.origin.within(self.root)


class IncludeExtension(SnippetExtension):
    """Takes the options of pymdownx.snippets."""

    def extendMarkdown(self, md: Markdown) -> None:
        """Hook into Markdown."""
        super().extendMarkdown(md)
        md.preprocessors.register(Includes(self.getConfigs(), md), "snippet", 32)


def makeExtension(**kwargs: object) -> IncludeExtension:
    """For Markdown's loader."""
    return IncludeExtension(**kwargs)
