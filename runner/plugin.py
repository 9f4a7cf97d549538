"""The pytest plugin: a test item for each program on a page, and the rules that pages and examples keep."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import re
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from pytest_codeblocks.plugin import MarkdownFile, TestBlock

from . import selection
from .judge import judge, unannounced_deprecation
from .pages import PageError, Program, read_programs, site_config
from .process import Outcome, run_as_on_page
from .selection import Selection

LAST_LINES = 15
# About what tests take that are not on pages.
TRAINING_TEST_SECONDS, SLOW_TEST_SECONDS, TEST_SECONDS, CHECKS_SECONDS = 20.0, 4.0, 0.1, 400.0
PROGRESS_EVERY = float(os.environ.get("RUNNER_PROGRESS_EVERY", 20))  # seconds

_FRAME = re.compile(r'^\s*File "(?P<file>[^"]+)", line (?P<line>\d+)')
# The same program stands on several pages at times. It runs once; the others reuse how it ended.
_outcomes: dict[str, Outcome] = {}


class ProgramFailed(Exception):
    """A program did not do what its page says; the message is the whole report."""


def key_of(program: Program) -> str:
    """What makes a program the one that it is: equal programs run once."""
    beside = "".join(file.read_text(encoding="utf-8") for file in program.beside)
    text = (
        f"{program.language}\n{program.file_name}\n{program.limit}\n{program.needs}\n{program.code}{beside}"
    )
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _error_place(program: Program, outcome: Outcome, root: Path) -> str | None:
    """File and line of the program's own last frame in the traceback, with the error's last line.

    Without a traceback: those of a deprecated call.
    """
    frame = error = None
    for stream, line in outcome.lines:
        if stream != "stderr":
            continue
        if (match := _FRAME.match(line)) and Path(match["file"]).name == program.file_name:
            frame, error = int(match["line"]), None
        elif frame and re.match(r"^\w[\w.]*(Error|Exception|Interrupt|Exit|Warning)?\b.*", line):
            error = line
    if frame is None and (found := unannounced_deprecation(program, outcome)):
        frame, error = found
    if frame is None or not 1 <= frame <= len(program.origins):
        return None
    origin = program.origins[frame - 1]
    return f"{_relative(origin.file, root)}:{origin.line}: {error or 'here'}"


def _relative(file: Path, root: Path) -> str:
    return str(file.relative_to(root) if file.is_relative_to(root) else file)


def report(program: Program, outcome: Outcome, problem: str, root: Path) -> str:
    """The whole failure report: page, line, example file, line, and the last lines printed."""
    lines = [f"{_relative(program.page, root)}:{program.line}: {problem}."]
    if place := _error_place(program, outcome, root):
        lines.append(place)
    elif program.origins and program.origins[0].file != program.page:
        lines.append(f"{_relative(program.origins[0].file, root)}:{program.origins[0].line}: the program")
    last = [line for _, line in outcome.lines][-LAST_LINES:]
    lines.append("The last lines that it printed:" if last else "It printed nothing.")
    return "\n".join(lines + [f"    {line}" for line in last])


def named(programs: list[Program]) -> Iterator[tuple[str, Program]]:
    """The programs of a page with their names, no name twice: pytest-xdist runs only one item of each name.

    A fence may stand in an included file, so two can have the same line.
    """
    times = Counter()
    for program in programs:
        times[program.line] += 1
        again = f" ({times[program.line]})" if times[program.line] > 1 else ""
        yield f"line {program.line}{again}", program


class PageFile(MarkdownFile):
    """A page: an item for each program, and one that fails when there is no program."""

    def collect(self) -> Iterator[pytest.Item]:
        root = self.config.rootpath
        try:
            programs = read_programs(self.path, root)
        except PageError as error:
            raise self.CollectError(str(error)) from None
        for name, program in named(programs):
            yield ProgramItem.from_parent(self, name=name, obj=program)
        if not programs:
            message = f"{_relative(self.path, root)}: no program on this page is run."
            yield RuleItem.from_parent(self, name="has a program", message=message)


class ProgramItem(TestBlock):
    """One program on a page, run as a reader would run it."""

    def runtest(self) -> None:
        program: Program = self.obj
        key = key_of(program)
        why = _reason(program, self.config)
        self.user_properties += [("program", key), ("why", why)]
        if why == selection.RESTS:
            example = selection.whole_file(program)
            selected = _selection(self.config)
            self.user_properties.append(("rests on", selected.records[example].date))
            if example in selected.postponed:
                self.user_properties.append(("postponed", True))
            return
        if key not in _outcomes:
            _outcomes[key] = run_as_on_page(program, program.limit)
        outcome = _outcomes[key]
        if problem := judge(program, outcome):
            raise ProgramFailed(report(program, outcome, problem, self.config.rootpath))

    def repr_failure(self, excinfo: pytest.ExceptionInfo) -> str:
        if isinstance(excinfo.value, ProgramFailed):
            return str(excinfo.value)
        return pytest.Item.repr_failure(self, excinfo)

    def reportinfo(self) -> tuple[Path, int, str]:
        return self.path, self.obj.line - 1, f"{_relative(self.path, self.config.rootpath)} {self.name}"


class RuleItem(pytest.Item):
    """A rule that a file breaks (`message`) or keeps (None)."""

    def __init__(self, name: str, parent: pytest.Collector, message: str | None):
        super().__init__(name, parent)
        self.message = message

    def runtest(self) -> None:
        if self.message:
            raise ProgramFailed(self.message)

    def repr_failure(self, excinfo: pytest.ExceptionInfo) -> str:
        return str(excinfo.value)

    def reportinfo(self) -> tuple[Path, int, str]:
        return self.path, 0, f"{_relative(self.path, self.config.rootpath)} {self.name}"


class ExampleFile(pytest.File):
    """An example: it has to stand on a page, or no reader finds it and no test runs it."""

    def collect(self) -> Iterator[pytest.Item]:
        message = None
        if self.path.resolve() not in _examples_on_pages(self.config.rootpath):
            message = f"{_relative(self.path, self.config.rootpath)}: no page embeds this example."
        yield RuleItem.from_parent(self, name="is on a page", message=message)


@functools.cache
def _programs_on_pages(root: Path) -> dict[Path, list[Program]]:
    """The programs on every page of the site; a page that cannot be read is reported when it is collected."""
    found = {}
    if (root / "mkdocs.yml").is_file():
        for page in sorted(Path(site_config(root).docs_dir).rglob("*.md")):
            with contextlib.suppress(PageError):
                found[page] = read_programs(page, root)
    return found


@functools.cache
def _examples_on_pages(root: Path) -> set[Path]:
    programs = [program for page in _programs_on_pages(root).values() for program in page]
    return {origin.file.resolve() for program in programs for origin in program.origins}


@functools.cache
def _selected(root: Path) -> Selection:
    return selection.select(_programs_on_pages(root), root)


def _selection(config: pytest.Config) -> Selection:
    return _selected(config.rootpath)


def _reason(program: Program, config: pytest.Config) -> str:
    """Why a program runs, or `selection.RESTS`."""
    why = _selection(config).reason(program)
    if why == selection.RESTS and config.getoption("programs") == "all":
        return selection.OTHERS
    return why


@pytest.hookimpl(wrapper=True)
def pytest_collect_file(file_path: Path, parent: pytest.Collector):
    collectors = yield
    root = parent.config.rootpath
    if not (root / "mkdocs.yml").is_file():
        return collectors
    if file_path.suffix == ".py" and file_path.is_relative_to(root / "examples"):
        return [ExampleFile.from_parent(parent, path=file_path)]
    return [
        PageFile.from_parent(parent, path=file_path) if isinstance(found, MarkdownFile) else found
        for found in collectors
    ]


@pytest.hookimpl(optionalhook=True)  # without pytest-xdist, pytest knows no such hook
def pytest_xdist_make_scheduler(config: pytest.Config, log):
    """Give equal programs to the same worker, which then runs one of them.

    This is what pytest-xdist's `--dist loadgroup` is for, but its version 3.8 writes the group into an
    attribute that pytest 9.2 no longer reads.
    """
    from xdist.scheduler import LoadScopeScheduling

    keys = {
        f"{_relative(page, config.rootpath)}::{name}": key_of(program)
        for page, programs in _programs_on_pages(config.rootpath).items()
        for name, program in named(programs)
    }

    class EqualProgramsTogether(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return keys.get(nodeid, nodeid)

    return EqualProgramsTogether(config, log)


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("programs on pages")
    group.addoption(
        "--programs",
        choices=["all", "due"],
        default="all",
        help="due: an example that has not changed and whose turn it is not rests on its record",
    )
    group.addoption("--shard", help="run one part of several, such as 2/6: parts that take about as long")


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Let a test that trains rest until one of its files changes or its turn comes."""
    if not _test_rests(pyfuncitem):
        return None
    pyfuncitem.user_properties.append(("rests on", ""))
    return True


def _test_rests(item: pytest.Item) -> bool:
    marker = item.get_closest_marker("training")
    if marker is None or item.config.getoption("programs") == "all":
        return False
    values = item.callspec.params if hasattr(item, "callspec") else {}
    files = [item.config.rootpath / name.format(**values) for name in marker.args]
    reason = _selection(item.config).reason_of_test(item.nodeid, [item.path, *files])
    return reason == selection.RESTS


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What takes long goes first, so that no worker waits for it at the end; and only the own shard stays."""
    programs = {item: item.obj for item in items if isinstance(item, ProgramItem)}

    def scope(item: pytest.Item) -> str:
        return key_of(programs[item]) if item in programs else item.nodeid.split("::")[0]

    def seconds(item: pytest.Item) -> float:
        if item not in programs:
            if item.get_closest_marker("training"):
                return 0.0 if _test_rests(item) else TRAINING_TEST_SECONDS
            return SLOW_TEST_SECONDS if item.get_closest_marker("slow") else TEST_SECONDS
        rests = _reason(programs[item], config) == selection.RESTS
        return 0.0 if rests else _selection(config).expected_seconds(programs[item])

    items.sort(key=seconds, reverse=True)  # a stable sort: tests of a file stay together
    weights: dict[str, float] = {}
    for item in items:  # equal programs run once, tests of a file one after the other
        weights[scope(item)] = seconds(item) + (0.0 if item in programs else weights.get(scope(item), 0.0))
    if option := config.getoption("shard"):
        number, of = map(int, option.split("/"))
        mine = selection.shard(weights, number, of)
        config.hook.pytest_deselected(items=[item for item in items if scope(item) not in mine])
        items[:] = [item for item in items if scope(item) in mine]


def expected_seconds(config: pytest.Config) -> float:
    """About how long a run of everything takes on one core of a machine like that of the records."""
    programs = {
        key_of(program): program for page in _programs_on_pages(config.rootpath).values() for program in page
    }
    due = [program for program in programs.values() if _reason(program, config) != selection.RESTS]
    return CHECKS_SECONDS + sum(_selection(config).expected_seconds(program) for program in due)


def pytest_report_teststatus(report: pytest.TestReport):
    """Say how long each program took, on its line; or which record it rests on."""
    date = dict(report.user_properties).get("rests on") if report.when == "call" and report.passed else None
    if date is not None:
        return "resting", "r", f"RESTS on its record of {date}" if date else "RESTS until its turn"
    if report.when == "call" and report.passed and report.duration >= 1:
        return "passed", ".", f"PASSED in {report.duration:.0f} s"
    return None


def pytest_terminal_summary(terminalreporter) -> None:
    """Count the programs that ran and those that rest, so that nothing is left out unseen."""
    counted: dict[str, set[str]] = {}
    postponed: set[str] = set()
    dates, waiting = [], []
    for reports in terminalreporter.stats.values():
        for report in reports:
            properties = dict(getattr(report, "user_properties", ()))
            if getattr(report, "when", None) != "call":
                continue
            if "rests on" in properties and "program" not in properties:
                waiting.append(report.nodeid)
            if "program" in properties:
                counted.setdefault(properties["why"], set()).add(properties["program"])
                dates += [properties["rests on"]] if "rests on" in properties else []
                if "postponed" in properties:
                    postponed.add(properties["program"])
    if counted or waiting:
        terminalreporter.write_line(
            selection.summary(counted, min(dates, default=None), waiting, len(postponed))
        )


class Progress:
    """At the start, how long it takes; every 20 seconds, what is running and for how long."""

    def __init__(self, config: pytest.Config):
        self.plugins = config.pluginmanager
        self.started: dict[str, float] = {}
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self._speak, daemon=True)
        self.thread.start()

    def pytest_sessionstart(self, session: pytest.Session) -> None:
        config = session.config
        if config.args_source is pytest.Config.ArgsSource.TESTPATHS and not config.getoption("shard"):
            jobs = config.getoption("numprocesses", None) or 1
            minutes = expected_seconds(config) / jobs / 60
            self._write_line(f"This takes about {max(1, round(minutes))} minutes.")

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self.started[nodeid] = time.monotonic()

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        self.started.pop(nodeid, None)

    def pytest_unconfigure(self) -> None:
        self.stop.set()

    def _speak(self) -> None:
        while not self.stop.wait(PROGRESS_EVERY):
            now = time.monotonic()
            running = [
                f"{nodeid.split('@')[0]} ({now - start:.0f} s)"
                for nodeid, start in sorted(self.started.items(), key=lambda item: item[1])
            ]
            if running:
                self._write_line(f"running: {', '.join(running)}")

    def _write_line(self, text: str) -> None:
        # While a test runs, pytest keeps what is written; these lines are for whoever waits.
        with self.plugins.get_plugin("capturemanager").global_and_fixture_disabled():
            terminal = self.plugins.get_plugin("terminalreporter")
            terminal.ensure_newline()
            terminal.write_line(text)


def pytest_configure(config: pytest.Config) -> None:
    if option := config.getoption("shard"):  # said here, before any pytest-xdist worker starts
        match = re.fullmatch(r"(\d+)/(\d+)", option)
        if not match or not 1 <= int(match[1]) <= int(match[2]):
            raise pytest.UsageError(f"A shard is written like 2/6, the second of six, not {option}.")
    config.addinivalue_line("markers", "training(*files): in `make test` when a file changed, or by turn")
    # On a pytest-xdist worker nobody reads the terminal; the controller speaks for all.
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Progress(config), "rllib-by-example-progress")
