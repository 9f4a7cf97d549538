"""Compares the built site with what the tests read: no code block that a reader sees may escape them.

Every code block of a page has to be a fence that pages.py has read, with the same text and language.
What can run, runs; what cannot is of a language in `NOT_RUN`; a `console` fence holds known commands, and a
script of a language in `BESIDE` is one that a program of the page has beside it.
"""

from __future__ import annotations

import ast
import html
import re
import textwrap
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path

from mkdocs.utils import markdown_extensions

from extensions import records

from . import console
from .pages import RUNNABLE, Fence, Origin, Page, PageError, lexer_of, read_page, site_config

NOT_RUN = ("text", "yaml", "json", "toml", "ini")
BESIDE = ("sbatch",)  # scripts that something else than a shell runs: a program of the page, beside it

# What a browser shows as code, or as the text of another file, beside <pre> and <code>.
_STRANGERS = ("textarea", "xmp", "listing", "plaintext", "iframe", "object", "embed", "font")
_INLINE = ("code", "samp", "tt", "kbd")
# An import too: words around it, or an error in it, keep `ast` from seeing that it is Python.
_PROGRAM = re.compile(
    r"^(import \w|from [\w.]+ import |>>> |In ?\[\d*\]: |[$%#] ?(python|pip|sh|bash|make)\b)", re.MULTILINE
)
_VOID = ("area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr")

_NO_FENCE = (
    "no fence that the tests read shows this code block; "
    "write it as a fence of its own, outside quotes and HTML, indented with spaces"
)
_LIKE_CODE = "a reader takes this for code, and no test reads it; write it as a fence"


@dataclass
class _Block:
    """A code block on a built page. `language` is empty where no formatter of ours or pymdownx's made it."""

    language: str
    text: str = ""


class _Blocks(HTMLParser):
    """Reads a page's code blocks, and what else looks like one."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks: list[_Block] = []
        self.strangers: list[str] = []
        self.open: list[tuple[str, list[str]]] = []  # tag and classes
        self.block: _Block | None = None
        self.output: _Block | None = None  # of the open figure: one with a fold has several `pre`
        self.inline: str | None = None
        self.parts = ""  # of a paragraph or the like: `c` for inline code, `b` for a line break, `t` for text

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag == "br":
            self.parts += "b"
            self.handle_data("\n")
        elif tag not in (*_INLINE, "span", "a", "strong", "em"):
            self.parts = ""
        if tag in _STRANGERS or (tag == "script" and self._inside("article")):
            self.strangers.append(f"<{tag}")
        style = re.search(r"white-space|font-family", values.get("style") or "")
        if style and not self._inside("svg", "math"):
            self.strangers.append(style[0])
        if tag == "pre" and self.block is None:
            if self.output and self._language() == "output":
                self.block = self.blocks.pop()
                self.block.text += "\n"
            else:
                self.block = _Block(self._language())
        elif tag in _INLINE and self.block is None and self.inline is None:
            self.inline = ""
        if tag not in _VOID:
            self.open.append((tag, (values.get("class") or "").split()))

    def handle_endtag(self, tag: str) -> None:
        if not self._inside(tag):
            return
        while self.open.pop()[0] != tag:
            pass
        if tag == "figure":
            self.output = None
        if self.block and not self._inside("pre"):
            self._end_block()
        if self.inline is not None and not self._inside(*_INLINE):
            self.parts += "c"
            if "\n" in self.inline.strip() or ("cbc" in self.parts and not self._inside("td", "th")):
                self.strangers.append(self.inline.strip())
            self.inline = None

    def handle_data(self, data: str) -> None:
        if self.block:
            self.block.text += data
        elif self.inline is not None:
            self.inline += data
        elif data.strip():
            self.parts += "t"

    def close(self) -> None:
        """Read the rest; a browser closes what is left open."""
        super().close()
        if self.block:
            self._end_block()

    def _end_block(self) -> None:
        numbers = any(tag == "td" and "linenos" in classes for tag, classes in self.open)
        if not (numbers and re.fullmatch(r"[\d\s]*", self.block.text)):
            self.blocks.append(self.block)
            self.output = self.block if self.block.language == "output" else None
        self.block = None

    def _inside(self, *tags: str) -> bool:
        return any(tag in tags for tag, _ in self.open)

    def _language(self) -> str:
        """The language that pymdownx writes around a block, or the name of our formatter that made it."""
        for tag, classes in reversed(self.open):
            if tag == "figure" and "output" in classes:
                return "output"
            if "highlight" in classes:
                names = [name for name in classes if name.startswith("language-")]
                return names[0].removeprefix("language-") if len(names) == 1 else ""
        return ""


def check_site(site: Path, root: Path) -> list[str]:
    """What is wrong with the code blocks of a built site: a sentence each, with page and line.

    Args:
        site: the folder that it was built into.
        root: the folder that holds `mkdocs.yml`.
    """
    problems: list[str] = []
    for built in sorted(site.rglob("*.html")):
        problems += check_page(
            built.read_text(encoding="utf-8"), _source(built.relative_to(site), root), root
        )
    return problems


def _source(built: Path, root: Path) -> Path:
    """The file that a page was made from; where it stands in the site, if that is not to be found."""
    docs = Path(site_config(root).docs_dir)
    stem = built.parent if built.name == "index.html" else built.with_suffix("")
    for name in (stem, stem / "index", stem / "README"):
        for suffix in (*markdown_extensions, ".ipynb"):
            file = docs / f"{name}{suffix}"
            if file.is_file():
                return file
    return docs / built


def check_page(built: str, page: Path, root: Path) -> list[str]:
    """What is wrong with the code blocks of one built page, as `check_site` says it."""
    parser = _Blocks()
    parser.feed(re.sub(r"<!---?>", "", built))  # for browsers, though not for Python, the end of the comment
    parser.close()
    read = Page([], [], [])
    waiting: dict[tuple[str, str], list[Fence]] = defaultdict(list)
    try:
        if page.suffix == ".md":  # pytest takes no other file for a page
            read = read_page(page, root)
        for fence in read.fences:
            waiting[_shown_as(fence, root)].append(fence)
    except PageError as error:
        return [str(error)]

    def place(text: str) -> Origin:
        first = next((line.strip() for line in text.splitlines() if line.strip()), text)
        found = [line.origin for line in read.lines if first in line or first in html.unescape(line)]
        return found[0] if found else Origin(page, 1)

    problems: list[tuple[Origin, str]] = []
    for block in parser.blocks:
        if fences := waiting[block.language, _trim(block.text)]:
            problems += _problems_of(fences.pop(0), read, root)
        else:
            problems.append((place(block.text), _NO_FENCE))
    superfences = site_config(root).mdx_configs["pymdownx.superfences"]
    drawn = {fence["name"] for fence in superfences["custom_fences"]} - {"output"}
    for fence in [fence for fences in waiting.values() for fence in fences]:
        if fence.language not in drawn:
            problems.append((fence.origin, "the page does not show this fence as a code block"))
    strangers = set(parser.strangers)
    if page.suffix == ".ipynb":
        strangers.discard("<script")  # mkdocs-jupyter writes some of its own
    problems += [(place(text), _LIKE_CODE) for text in strangers]
    ordered = sorted(set(problems), key=lambda problem: (problem[0].file, problem[0].line, problem[1]))
    return [f"{origin.within(root)}: {words}." for origin, words in ordered]


def _trim(text: str) -> str:
    """Without empty lines around it, and without spaces on empty lines; the site shows neither."""
    return re.sub(r"^[ \t]+$", "", text, flags=re.MULTILINE).strip("\n")


def _shown_as(fence: Fence, root: Path) -> tuple[str, str]:
    """The language and the text that the site shows for a fence."""
    if fence.language == "output":
        return "output", _trim(
            records.read(records.path_of(fence.text.strip(), root / "results")).output.rstrip()
        )
    return fence.language if lexer_of(fence.language) else "text", _trim(fence.text)


def _problems_of(fence: Fence, page: Page, root: Path) -> Iterator[tuple[Origin, str]]:
    """What is wrong with a fence that the page shows as it is written."""
    if fence.runs_as in RUNNABLE:
        if fence.program is None or fence.program.language != fence.runs_as:
            yield fence.origin, "this program is not run, because of the instruction above it"
    elif fence.language == "console":
        names = [program.file_name for program in page.programs]
        for line in fence.lines:
            if problem := console.problem_of(line, names, root):
                yield line.origin, f"this command is not known to work: {problem}"
    elif fence.language in BESIDE:
        if fence.text.strip() not in {
            file.read_text(encoding="utf-8").strip() for program in page.programs for file in program.beside
        }:
            yield fence.origin, f"this is `{fence.language}`, and no program of the page runs beside it"
    elif fence.language in NOT_RUN:
        if _PROGRAM.search(textwrap.dedent(fence.text)) or _is_program(fence.text):
            yield fence.origin, f"this is a program; write it as `python`, not as `{fence.language}`"
    elif not fence.language:
        yield fence.origin, "this code block names no language; `text` is for what cannot be run"
    elif fence.language != "output":
        yield (
            fence.origin,
            f"`{fence.language}` is neither run ({', '.join(RUNNABLE)}) nor known as what cannot be run "
            f"(console, {', '.join((*BESIDE, *NOT_RUN))})",
        )


def _is_program(text: str) -> bool:
    """Whether a text is Python that would do something, and not a word or a line of an error."""
    try:
        tree = ast.parse(textwrap.dedent(text))
    except (SyntaxError, ValueError):
        return False
    doing = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef, ast.Raise, ast.Call)
    return any(isinstance(node, doing) for node in ast.walk(tree))
