"""Ends the build where a page went wrong in silence: what pymdownx forgives, and Markdown left as text.

pymdownx shows a fence or inline code as it is written when a formatter fails. Markdown shows as text whatever
it does not understand. Neither is what a writer meant, so both are errors here, named by page and line.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from html.parser import HTMLParser

from markdown import Markdown
from markdown.extensions import Extension
from markdown.postprocessors import Postprocessor

from . import PageError

# Raw Markdown in the text of a page. Code, equations and pictures are not text; `\ufffc` stands for each.
_TAGS = (
    "a|b|br|code|dd|details|div|dl|dt|em|figcaption|figure|h[1-6]|hr|i|img|kbd|li|ol|p|pre|script|small|span"
    "|strong|style|sub|summary|sup|svg|table|tbody|td|th|thead|tr|u|ul"
)
_RAW = {
    "a fence": r"`{3,}|~{3,}",
    "a backtick": r"`",
    "an include": r"-+8<-+",
    "a comment": r"<!--|-->",
    "an HTML tag": rf"</?(?:{_TAGS})\b",
    "a picture": r"!\[",
    "a footnote": r"\[\^[^\]\s]+\]",
    "an abbreviation": r"^\s*\*\[[^\]]+\]:",
    "a link": r"(?<![\w\]\)])\[[^\[\]]*(?:[^\W\d_] ?[^\W\d_]|\ufffc)[^\[\]]*\][\[(][^\])]*[\])]",
    "a link's definition": r"^\s*\[[^\[\]]+\]:\s",
    "a reference": r"(?<![\w\]\)])\[[A-Za-z][^\[\],;:|=<>()]*\]",
    "an attribute list": r"\{:?\s*(?:[.#][A-Za-z]|[\w-]+=)[^}]*\}|\{:[^}]*\}",
    "a template": r"\{\{|\{%",
    "an equation": r"\$\$|(?<![\w$\\])\$(?=[^\s$])[^$\n]*(?<=[^\s$])\$(?!\w)|\\[()\[\]]|\\begin\{",
    "a block": r"^\s*(?::{3,}|/{3,})\s*\w",
    "a tab, a note or a box": r"^\s*(?:={3}[!+]*\s*[\"'“]|!{3}\s*\w|\?{3}\+?\s*\w)",
    "a heading": r"^\s*(?:#{2,}\s|#\s+[A-Z])",
    "a quote": r"^\s*>\s+[^\W\d]",
    "a list": r"^\s*[-*]\s+(?:[^\W\d]|\ufffc)",
    "a table": r"^\s*\|.+\|.*\||\|\s*:?-{3,}",
    "bold text": r"(?<![\w*])\*\*(?=\S)|(?<=[^\s*])\*\*(?!\w)|(?<![\w_])__(?=\w)[^_\n]+__(?!\w)",
    "emphasis": r"(?<![\w*])\*(?=\w)[^*\n]*(?<=\w)\*(?![\w*])|(?<![\w_])_(?=\w)[^_\n]*(?<=\w)_(?![\w_])",
    "struck or marked text": r"~~(?=\S)|(?<![\w=])==(?=\w)|(?<![\w+])\+\+(?=\w)",
    "an emoji": r"(?<![\w:]):[a-z][a-z0-9_+-]*:(?![\w:])",
}
_PATTERNS = {what: re.compile(pattern, re.MULTILINE) for what, pattern in _RAW.items()}
# Most of a page is coloured code and pictures; without them it is parsed ten times as fast.
_BULK = re.compile(r"<!--.*?-->|<(pre|svg|math|script|style)\b.*?</\1\s*>", re.DOTALL)
_BREAK = re.compile(r"[\n\ufffc]")  # what stands on both sides of it may be apart in the source
_INLINE_LANGUAGE = re.compile(r"^\s*(?:#!|:::)\w|#!\w+ \w")
_NOT_TEXT = {"code", "pre", "math", "script", "style", "svg"}
_WITHIN_TEXT = re.compile("a|abbr|b|cite|del|em|i|ins|kbd|label|mark|q|s|small|span|strong|sub|sup|u|wbr")


class _Text(HTMLParser):
    """The text of each block of a page, and its inline code."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = [""]
        self.codes: list[str] = []
        self.inside: list[str] = []  # from the outermost tag of `_NOT_TEXT` inwards

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if not self.inside and tag not in _NOT_TEXT and not _WITHIN_TEXT.fullmatch(tag):
            self.blocks.append("")
        if tag not in _NOT_TEXT:
            return
        if not self.inside:
            self.blocks[-1] += "\ufffc"
            if tag == "code":
                self.codes.append("")
        self.inside.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in self.inside:
            while self.inside.pop() != tag:
                pass
        elif not self.inside and not _WITHIN_TEXT.fullmatch(tag):
            self.blocks.append("")

    def handle_data(self, data: str) -> None:
        if not self.inside:
            self.blocks[-1] += data
        elif self.inside[0] == "code":
            self.codes[-1] += data


@dataclass(frozen=True)
class Leftover:
    """A sign of Markdown in a page's text: what it was meant to be, its text, and the text around it."""

    what: str
    raw: str
    around: str


def leftovers(html: str) -> list[Leftover]:
    """What a page shows of the signs of Markdown."""
    page = _Text()
    page.feed(_BULK.sub(lambda bulk: f"<{bulk[1]}></{bulk[1]}>" if bulk[1] else "", html))
    page.close()
    found = []
    if page.inside:
        found.append(Leftover("an open tag", f"<{page.inside[0]}", ""))
    for code in page.codes:
        if _INLINE_LANGUAGE.search(code):
            found.append(Leftover("inline code with a language", code.strip(), ""))
        elif "\n" in code.strip():  # what Markdown makes of a fence that superfences does not take
            found.append(Leftover("code over several lines", code.strip().split("\n")[0], ""))
    for block in filter(str.strip, page.blocks):
        taken = [False] * len(block)
        for what, pattern in _PATTERNS.items():
            for match in pattern.finditer(block):
                span = slice(*match.span())
                if not any(taken[span]):
                    taken[span] = [True] * len(match[0])
                    before = _BREAK.split(block[max(match.start() - 20, 0) : match.start()])[-1]
                    after = _BREAK.split(block[match.end() : match.end() + 20])[0]
                    found.append(Leftover(what, match[0].strip(), before + match[0] + after))
    return found


class _NoLeftovers(Postprocessor):
    """Runs last, on the HTML of the page."""

    def run(self, text: str) -> str:
        seen: Counter[str] = Counter()
        problems = []
        for leftover in leftovers(text):
            parts = sorted(map(str.strip, _BREAK.split(leftover.raw)), key=len, reverse=True)
            texts = [leftover.around.strip() or leftover.raw, *filter(None, parts)]
            where = self.md.preprocessors["snippet"].place(texts, seen[leftover.around])
            seen[leftover.around] += 1
            raw = leftover.raw.replace("\ufffc", "...")[:60]
            problems.append(f"{where}: the page shows {leftover.what} as it is written: {raw!r}.")
        if problems:
            raise PageError("\n".join(dict.fromkeys(problems)))
        return text


def _without_forgiveness(process: Callable, place: Callable[..., str]) -> Callable:
    """`process`, in which whatever is raised ends the build, with the place in front."""

    def strictly(*args):
        try:
            return process(*args)
        except PageError as error:
            raise PageError(f"{place(*args)}: {error}") from None
        except Exception as error:
            text = str(error).replace("\n", " ")
            raise PageError(
                f"{place(*args)}: this cannot be shown: {type(error).__name__}: {text}"
            ) from error

    return strictly


class StrictExtension(Extension):
    """Stands behind the extensions that it watches: superfences, inlinehilite and ours."""

    def extendMarkdown(self, md: Markdown) -> None:
        """Hook into Markdown."""
        self.md = md
        md.registerExtension(self)
        md.postprocessors.register(_NoLeftovers(md), "no-leftovers", -100)
        inline = md.inlinePatterns["backtick"]
        inline.handle_code = _without_forgiveness(inline.handle_code, self._place_of_code)

    def reset(self) -> None:
        """For each page: superfences has just put a new processor in its place."""
        fences = self.md.preprocessors["fenced_code_block"]
        process = fences.process_nested_block

        def process_as_named(*args) -> None:
            for entry in fences.extension.superfences:
                if entry["name"] == fences.lang and entry["formatter"] is not fences.formatter:
                    raise PageError(f"a `{fences.lang}` fence takes no options.")
            process(*args)

        fences.process_nested_block = _without_forgiveness(process_as_named, self._place_of_fence)

    def _place_of_code(self, language: str, source: str) -> str:
        return self.md.preprocessors["snippet"].place([f"#!{language} {source}" if language else source])

    def _place_of_fence(self, indent: str, content: str, start: int, end: int) -> str:
        includes = self.md.preprocessors["snippet"]
        return includes.lines[start].origin.within(includes.root)


def makeExtension(**kwargs: object) -> StrictExtension:
    """For Markdown's loader."""
    return StrictExtension(**kwargs)
