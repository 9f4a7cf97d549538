"""Turns a page into the programs that stand on it.

pytest-codeblocks extracts the blocks. Around it this module does what it does not know:
it expands `--8<--` includes as the site does, reduces a fence's info string to its language,
and reads the instructions that stand in a comment above a fence:

    <!-- program: limit 90 -->                   seconds that it may take (default 240)
    <!-- program: fails with "SomeError: text" -->   it must die of this error
    <!-- program: deprecated "text" -->          it makes a call of which RLlib says this
    <!-- program: prints its record -->          its output must be the recorded one
    <!-- program: beside "examples/x.py" -->     the reader has saved this file in the same folder
    <!-- program: needs "ray[default]" -->       it runs where these extras of a package are installed

Every program is run. What would leave one out is refused, pytest-codeblocks' own comments too.
"""

from __future__ import annotations

import functools
import io
import json
import re
import symtable
from dataclasses import dataclass
from pathlib import Path

import markdown
from markdown.extensions.attr_list import get_attrs
from mkdocs.config import load_config
from mkdocs.config.defaults import MkDocsConfig
from pygments.lexers import PythonLexer, get_lexer_by_name
from pygments.util import ClassNotFound
from pymdownx.snippets import SnippetExtension
from pymdownx.superfences import RE_NESTED_FENCE_START
from pytest_codeblocks import extract_from_buffer

from extensions import PageError
from extensions.includes import Includes, Line, Origin

DEFAULT_LIMIT = 240.0  # against programs that hang: slow machines exist; records hold the budgets
RUNNABLE = ("python", "sh", "bash")
EXTRAS = "requirements-cluster.in"
SYSTEM = ("Slurm",)  # what a program may need that pip cannot install; `make test-all` does

_FENCE = re.compile(r"^(?P<indent>[ \t]*)(?P<fence>`{3,}|~{3,})(?P<info>[^`]*)$")
_INSTRUCTION = re.compile(r"^\s*<!--\s*program:\s*(?P<text>.*?)\s*-->\s*$")
# pytest-codeblocks' comments, all but the two that leave no program out and forgive no failure.
_EXCLUSION = re.compile(r"<!--[-\s]*pytest(\.mark|-codeblocks:(?!\s*(cont|expected-output)\b))")
# `SomeError: text` or `package.SomeError: text`. Text without a name has to be long, or other errors fit.
NAMED_ERROR = re.compile(r"(?P<name>(?:\w+\.)*[A-Z]\w*): (?P<message>.+)")
TELLING = 20  # characters


def has_target(source: str) -> bool:
    """Whether a program assigns a global `TARGET`, however the assignment is written."""
    try:
        names = symtable.symtable(source, "program", "exec")
    except SyntaxError:  # running it says so better
        return False
    return "TARGET" in names.get_identifiers() and (
        names.lookup("TARGET").is_assigned() or names.lookup("TARGET").is_imported()
    )


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
    files: frozenset[Path] = frozenset()
    """Where it was read from: its code, its page, and the files with fences that the page includes."""
    limit: float = DEFAULT_LIMIT
    fails_with: str | None = None
    deprecated: tuple[str, ...] = ()
    prints_record: bool = False
    beside: tuple[Path, ...] = ()
    """Files that stand in its folder when it runs."""
    needs: str | None = None
    """What the ordinary environment has not: extras in `requirements-cluster.in`, or one of `SYSTEM`."""
    expected_output: str | None = None
    ignore_whitespace: bool = False

    @property
    def has_target(self) -> bool:
        """Whether the program has a `TARGET`, and so has to print a verdict."""
        return self.language == "python" and has_target(self.code)

    @property
    def file_name(self) -> str:
        """The name of the example that the program is, or one that tells page and line."""
        files = {origin.file for origin in self.origins}
        if len(files) == 1 and (only := files.pop()) != self.page:
            return only.name
        suffix = ".py" if self.language == "python" else ".sh"
        return f"{self.page.stem}_line_{self.line}{suffix}"


@functools.cache
def site_config(root: Path) -> MkDocsConfig:
    """The site's settings, from `mkdocs.yml` in `root`."""
    return load_config(str(root / "mkdocs.yml"))


def _expand(page: Path, root: Path) -> list[Line]:
    """The page's lines with every include in its place."""
    config = site_config(root)
    options = config.mdx_configs.get("extensions.includes") or config.mdx_configs.get("pymdownx.snippets", {})
    settings = SnippetExtension(**options).getConfigs()  # with pymdownx's own defaults for the rest
    bases = settings["base_path"]
    bases = [bases] if isinstance(bases, str) else bases
    settings["base_path"] = [str(root / base) for base in bases]
    includes = Includes(settings, markdown.Markdown(), root)
    return includes.expand(page, page.read_text(encoding="utf-8").split("\n"))


def _written_language(fence: str) -> str:
    """The language of a fence as superfences reads it: of `{#id .py3}` it is `py3`."""
    match = RE_NESTED_FENCE_START.match(fence)
    if match is None or match["lang"]:
        return match["lang"] if match else ""
    classes = [value for key, value in get_attrs(match["attrs"] or "") if key == "."]
    return classes[0] if classes else ""


@functools.cache
def lexer_of(language: str) -> type | None:
    """The class with which Pygments colours a language; None if it knows no such language."""
    try:
        return type(get_lexer_by_name(language))
    except ClassNotFound:
        return None


def _language(written: str) -> str:
    """What runs a language: whatever Pygments colours as Python is Python (`py3`, `PYTHON`, `pyi`)."""
    word = written.lower()
    if lexer_of(word) is PythonLexer:  # and not a class made from it, such as IPython's
        return "python"
    return "sh" if word == "shell" else word


@dataclass
class Fence:
    """A fence on a page, run or not.

    `language` is as written, empty when there is none; `program` is what runs its lines, if anything does.
    """

    origin: Origin
    language: str
    lines: list[Line]
    program: Program | None = None

    @property
    def text(self) -> str:
        """What stands in it."""
        return "\n".join(self.lines)

    @property
    def runs_as(self) -> str:
        """What its language means to the runner: `python` for `py3`, say."""
        return _language(self.language)


@dataclass
class Page:
    """A page: its lines with every include in its place, its programs and its fences, each in order."""

    lines: list[Line]
    programs: list[Program]
    fences: list[Fence]


def _extras(root: Path) -> list[str]:
    """What is asked for in the file of extras, without versions."""
    lines = (root / EXTRAS).read_text(encoding="utf-8").splitlines() if (root / EXTRAS).is_file() else []
    return [line.split("==")[0].strip() for line in lines]


@dataclass
class _Instructions:
    limit: float = DEFAULT_LIMIT
    fails_with: str | None = None
    deprecated: tuple[str, ...] = ()
    prints_record: bool = False
    beside: tuple[Path, ...] = ()
    needs: str | None = None

    def add(self, text: str, where: str, root: Path) -> None:
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
        elif match := re.fullmatch(r'beside "((?:examples|snippets)/.+)"', text):
            self.beside += (root / match[1],)
            if not self.beside[-1].is_file():
                raise PageError(f"{where}: there is no {match[1]} to stand beside the program.")
            if len({file.name for file in self.beside}) < len(self.beside):
                raise PageError(
                    f"{where}: two files named {self.beside[-1].name} cannot stand in one folder."
                )
        elif match := re.fullmatch(r'needs "(.+)"', text):
            self.needs = match[1]
            if match[1] not in (*SYSTEM, *_extras(root)):
                raise PageError(f"{where}: {EXTRAS} does not ask for {match[1]}.")
        elif text.startswith("fails"):
            raise PageError(f'{where}: name the error that is expected: `fails with "SomeError: text"`.')
        else:
            raise PageError(f"{where}: unknown instruction `program: {text}`.")


def _normalise(
    lines: list[Line], root: Path
) -> tuple[list[str], list[str], dict[int, _Instructions], dict[int, Fence]]:
    """The page as pytest-codeblocks can read it, twice: with its text, and with line numbers for code.

    Returns both texts and, by the number of a fence's line, the instructions above that fence and the fence.
    """
    text: list[str] = []
    numbered: list[str] = []
    instructions: dict[int, _Instructions] = {}
    fences: dict[int, Fence] = {}
    pending: _Instructions | None = None
    fence: re.Match | None = None
    opened = 0
    for number, line in enumerate(lines, 1):
        match = _FENCE.match(line)
        if fence is None and match:
            fence = match
            opened = number
            fences[number] = Fence(line.origin, _written_language(line.strip()), [])
            opening = f"{match['indent']}{'`' * len(match['fence'])}{fences[number].runs_as}"
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
                indent = min(len(fence["indent"]), len(line) - len(line.lstrip()))
                fences[opened].lines.append(Line(line[indent:], line.origin))
                # pytest-codeblocks ends a block at any line that starts with backticks.
                text.append(line.replace("```", "\u200b```") if line.lstrip().startswith("```") else line)
                numbered.append(str(number))
        else:
            where = line.origin.within(root)
            if instruction := _INSTRUCTION.match(line):
                pending = pending or _Instructions()
                pending.add(instruction["text"], where, root)
                line = ""
            elif _EXCLUSION.search(line):
                raise PageError(f"{where}: every program on a page is run; this would leave one out.")
            elif line.strip() and pending:
                raise PageError(f"{where}: an instruction for a program has to stand right above its fence.")
            text.append(line)
            numbered.append(line)
    if fence is not None:
        raise PageError(f"{lines[-1].origin.within(root)}: a fence on this page is never closed.")
    return text, numbered, instructions, fences


def read_programs(page: Path, root: Path) -> list[Program]:
    """The programs on `page`, in order.

    Args:
        page: a Markdown file.
        root: the folder that holds `mkdocs.yml`.

    Raises:
        PageError: an include is missing, or an instruction cannot be understood.
    """
    return read_page(page, root).programs


def read_page(page: Path, root: Path) -> Page:
    """All that the tests know of a page; otherwise as `read_programs`."""
    lines = _expand(page, root)
    text, numbered, instructions, fences = _normalise(lines, root)
    try:
        blocks = extract_from_buffer(io.StringIO("\n".join(text) + "\n"), max_num_lines=100_000)
        shadows = extract_from_buffer(io.StringIO("\n".join(numbered) + "\n"), max_num_lines=100_000)
    except RuntimeError as error:
        raise PageError(f"{page.relative_to(root)}: {error}") from None
    fenced = {page} | {fence.origin.file for fence in fences.values()}
    programs: list[Program] = []
    for block, shadow in zip(blocks, shadows, strict=True):
        if block.syntax not in RUNNABLE:
            continue
        orders = instructions[block.lineno]
        numbers = [int(number) for number in shadow.code.split()]
        programs.append(
            Program(
                page=page,
                line=lines[block.lineno - 1].origin.line,
                language=block.syntax,
                code=block.code.replace("\u200b```", "```"),
                origins=[lines[number - 1].origin for number in numbers],
                files=frozenset(
                    fenced | {lines[number - 1].origin.file for number in numbers} | set(orders.beside)
                ),
                limit=orders.limit,
                fails_with=orders.fails_with,
                deprecated=orders.deprecated,
                prints_record=orders.prints_record,
                beside=orders.beside,
                needs=orders.needs,
                expected_output=block.expected_output,
                ignore_whitespace=block.expected_output_ignore_whitespace,
            )
        )
        if orders.prints_record:
            programs[-1].expected_output = _recorded_output(programs[-1], root)
        fences[block.lineno].program = programs[-1]
        for number in {number - 1 for number in numbers} & set(fences):  # those that go on with it
            fences[number].program = programs[-1]
    return Page(lines, programs, list(fences.values()))


def _recorded_output(program: Program, root: Path) -> str:
    example = program.origins[0].file
    if not example.is_relative_to(root / "examples"):
        raise PageError(f"{Origin(program.page, program.line).within(root)}: only an example has a record.")
    record = (root / "results" / example.relative_to(root / "examples")).with_suffix(".json")
    if not record.is_file():
        raise PageError(f"{Origin(program.page, program.line).within(root)}: {example.name} has no record.")
    return json.loads(record.read_text(encoding="utf-8"))["output"]
