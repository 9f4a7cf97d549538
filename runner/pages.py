"""Turns a page into the programs that stand on it.

pytest-codeblocks extracts the blocks. Around it this module does what it does not know:
it expands `--8<--` includes with pymdownx's own preprocessor, reduces a fence's info string
to its language, and reads the instructions that stand in a comment above a fence:

    <!-- program: limit 90 -->                   seconds that it may take (default 240)
    <!-- program: fails with "SomeError: text" -->   it must die of this error
    <!-- program: deprecated "text" -->          it makes a call of which RLlib says this
    <!-- program: prints its record -->          its output must be the recorded one

Every program is run. What would leave one out is refused, pytest-codeblocks' own comments too.
"""

from __future__ import annotations

import functools
import io
import json
import re
import symtable
import textwrap
from dataclasses import dataclass
from pathlib import Path

import markdown
from mkdocs.config import load_config
from mkdocs.config.defaults import MkDocsConfig
from pymdownx.snippets import SnippetExtension, SnippetMissingError, SnippetPreprocessor
from pytest_codeblocks import extract_from_buffer

DEFAULT_LIMIT = 240.0  # against programs that hang: slow machines exist; records hold the budgets
LANGUAGES = {"py": "python", "python3": "python", "shell": "sh"}
RUNNABLE = ("python", "sh", "bash")

_FENCE = re.compile(r"^(?P<indent>[ \t]*)(?P<fence>`{3,}|~{3,})(?P<info>[^`]*)$")
_INSTRUCTION = re.compile(r"^\s*<!--\s*program:\s*(?P<text>.*?)\s*-->\s*$")
# pytest-codeblocks' comments, all but the two that leave no program out and forgive no failure.
_EXCLUSION = re.compile(r"<!--[-\s]*pytest(\.mark|-codeblocks:(?!\s*(cont|expected-output)\b))")
# `SomeError: text` or `package.SomeError: text`. Text without a name has to be long, or other errors fit.
NAMED_ERROR = re.compile(r"(?P<name>(?:\w+\.)*[A-Z]\w*): (?P<message>.+)")
TELLING = 20  # characters


class PageError(Exception):
    """A page that cannot be read as programs; the message is one sentence that says where and why."""


@dataclass(frozen=True)
class Origin:
    """Where a line stands that a reader may edit."""

    file: Path
    line: int


@dataclass
class Program:
    """A program on a page.

    `origins[i]` is the file and line of line `i` of `code`, which may come from an included example.
    """

    page: Path
    line: int
    language: str
    code: str
    origins: list[Origin]
    limit: float = DEFAULT_LIMIT
    fails_with: str | None = None
    deprecated: tuple[str, ...] = ()
    prints_record: bool = False
    expected_output: str | None = None
    ignore_whitespace: bool = False

    @property
    def has_target(self) -> bool:
        """Whether the program sets a `TARGET`, and so has to print a verdict."""
        if self.language != "python":
            return False
        try:
            names = symtable.symtable(self.code, self.file_name, "exec")
        except SyntaxError:  # running it says so better
            return False
        return "TARGET" in names.get_identifiers() and (
            names.lookup("TARGET").is_assigned() or names.lookup("TARGET").is_imported()
        )

    @property
    def file_name(self) -> str:
        """The name of the example that the program is, or one that tells page and line."""
        files = {origin.file for origin in self.origins}
        if len(files) == 1 and (only := files.pop()) != self.page:
            return only.name
        suffix = ".py" if self.language == "python" else ".sh"
        return f"{self.page.stem}_line_{self.line}{suffix}"


class _Line(str):
    """A line that remembers its file and number through the indentation that an include adds."""

    origin: Origin

    def __new__(cls, text: str, origin: Origin) -> _Line:
        line = super().__new__(cls, text)
        line.origin = origin
        return line

    def __radd__(self, indent: str) -> _Line:
        return _Line(str.__add__(indent, self), self.origin)


class _Snippets(SnippetPreprocessor):
    def read_lines(self, path: str) -> list[str]:
        file = Path(path)
        return [_Line(text, Origin(file, n)) for n, text in enumerate(super().read_lines(path), 1)]

    def dedent(self, lines: list[str]) -> list[str]:
        texts = textwrap.dedent("\n".join(lines)).split("\n") if lines else []
        return [
            _Line(text, line.origin) if isinstance(line, _Line) else text
            for text, line in zip(texts, lines, strict=True)
        ]


@functools.cache
def site_config(root: Path) -> MkDocsConfig:
    """The site's settings, from `mkdocs.yml` in `root`."""
    return load_config(str(root / "mkdocs.yml"))


def _expand(page: Path, root: Path) -> list[_Line]:
    """The page's lines with every include in its place."""
    config = site_config(root)
    options = config.mdx_configs.get("extensions.includes") or config.mdx_configs.get("pymdownx.snippets", {})
    settings = SnippetExtension(**options).getConfigs()  # with pymdownx's own defaults for the rest
    bases = settings["base_path"]
    bases = [bases] if isinstance(bases, str) else bases
    settings["base_path"] = [str(root / base) for base in bases]
    snippets = _Snippets(settings, markdown.Markdown())
    snippets.seen = set()
    texts = page.read_text(encoding="utf-8").split("\n")
    try:
        lines = snippets.parse_snippets(
            [_Line(text, Origin(page, number)) for number, text in enumerate(texts, 1)], str(page)
        )
    except SnippetMissingError as error:
        # The error names the path or section, not the line that asks for it.
        missing = re.search(r"'([^']*)'", str(error))[1]
        number = next((n for n, text in enumerate(texts, 1) if "8<" in text and missing in text), 1)
        raise PageError(f"{_at(Origin(page, number), root)}: {error}.") from None
    expanded: list[_Line] = []
    for line in lines:
        if not isinstance(line, _Line):  # an escaped include, which pymdownx has rewritten
            line = _Line(line, expanded[-1].origin if expanded else Origin(page, 1))
        expanded.append(line)
    return expanded


def _language(info: str) -> str:
    """`python title="x"`, `{.python .annotate}` and `py` are all Python."""
    word = re.split(r"[\s{}]+", info.strip().lstrip("{").strip(), maxsplit=1)[0].lstrip(".").lower()
    return LANGUAGES.get(word, word)


@dataclass
class _Instructions:
    limit: float = DEFAULT_LIMIT
    fails_with: str | None = None
    deprecated: tuple[str, ...] = ()
    prints_record: bool = False

    def add(self, text: str, where: str) -> None:
        if match := re.fullmatch(r"limit (\d+)", text):
            self.limit = float(match[1])
        elif match := re.fullmatch(r'fails with "(.+)"', text):
            self.fails_with = match[1]
            if not NAMED_ERROR.fullmatch(match[1]) and (len(match[1]) < TELLING or match[1].count(" ") < 2):
                raise PageError(
                    f'{where}: `{match[1]}` fits many errors; name one: `fails with "SomeError: text"`.'
                )
        elif match := re.fullmatch(r'deprecated "(.{20,})"', text):
            self.deprecated += (match[1],)
        elif text == "prints its record":
            self.prints_record = True
        elif text.startswith("fails"):
            raise PageError(f'{where}: name the error that is expected: `fails with "SomeError: text"`.')
        else:
            raise PageError(f"{where}: unknown instruction `program: {text}`.")


def _at(origin: Origin, root: Path) -> str:
    file = origin.file
    return f"{file.relative_to(root) if file.is_relative_to(root) else file}:{origin.line}"


def _normalise(lines: list[_Line], root: Path) -> tuple[list[str], list[str], dict[int, _Instructions]]:
    """The page as pytest-codeblocks can read it, twice: with its text, and with line numbers for code.

    Returns both texts and, by the number of a fence's line, the instructions above that fence.
    """
    text: list[str] = []
    numbered: list[str] = []
    instructions: dict[int, _Instructions] = {}
    pending: _Instructions | None = None
    fence: re.Match | None = None
    for number, line in enumerate(lines, 1):
        match = _FENCE.match(line)
        if fence is None and match:
            fence = match
            opening = f"{match['indent']}{'`' * len(match['fence'])}{_language(match['info'])}"
            text.append(opening)
            numbered.append(opening)
            instructions[number] = pending or _Instructions()
            pending = None
        elif fence is not None:
            closes = (
                match
                and match["fence"][0] == fence["fence"][0]
                and len(match["fence"]) >= len(fence["fence"])
                and not match["info"].strip()
            )
            if closes:
                closing = f"{fence['indent']}{'`' * len(fence['fence'])}"
                text.append(closing)
                numbered.append(closing)
                fence = None
            else:
                # pytest-codeblocks ends a block at any line that starts with backticks.
                text.append(line.replace("```", "\u200b```") if line.lstrip().startswith("```") else line)
                numbered.append(str(number))
        else:
            where = _at(line.origin, root)
            if instruction := _INSTRUCTION.match(line):
                pending = pending or _Instructions()
                pending.add(instruction["text"], where)
                line = ""
            elif _EXCLUSION.search(line):
                raise PageError(f"{where}: every program on a page is run; this would leave one out.")
            elif line.strip() and pending:
                raise PageError(f"{where}: an instruction for a program has to stand right above its fence.")
            text.append(line)
            numbered.append(line)
    if fence is not None:
        raise PageError(f"{_at(lines[-1].origin, root)}: a fence on this page is never closed.")
    return text, numbered, instructions


def read_programs(page: Path, root: Path) -> list[Program]:
    """The programs on `page`, in order.

    Args:
        page: a Markdown file.
        root: the folder that holds `mkdocs.yml`.

    Raises:
        PageError: an include is missing, or an instruction cannot be understood.
    """
    lines = _expand(page, root)
    text, numbered, instructions = _normalise(lines, root)
    try:
        blocks = extract_from_buffer(io.StringIO("\n".join(text) + "\n"), max_num_lines=100_000)
        shadows = extract_from_buffer(io.StringIO("\n".join(numbered) + "\n"), max_num_lines=100_000)
    except RuntimeError as error:
        raise PageError(f"{page.relative_to(root)}: {error}") from None
    programs: list[Program] = []
    for block, shadow in zip(blocks, shadows, strict=True):
        if block.syntax not in RUNNABLE:
            continue
        orders = instructions[block.lineno]
        programs.append(
            Program(
                page=page,
                line=lines[block.lineno - 1].origin.line,
                language=block.syntax,
                code=block.code.replace("\u200b```", "```"),
                origins=[lines[int(number) - 1].origin for number in shadow.code.split()],
                limit=orders.limit,
                fails_with=orders.fails_with,
                deprecated=orders.deprecated,
                prints_record=orders.prints_record,
                expected_output=block.expected_output,
                ignore_whitespace=block.expected_output_ignore_whitespace,
            )
        )
        if orders.prints_record:
            programs[-1].expected_output = _recorded_output(programs[-1], root)
    return programs


def _recorded_output(program: Program, root: Path) -> str:
    example = program.origins[0].file
    if not example.is_relative_to(root / "examples"):
        raise PageError(f"{_at(Origin(program.page, program.line), root)}: only an example has a record.")
    record = (root / "results" / example.relative_to(root / "examples")).with_suffix(".json")
    if not record.is_file():
        raise PageError(f"{_at(Origin(program.page, program.line), root)}: {example.name} has no record.")
    return json.loads(record.read_text(encoding="utf-8"))["output"]
