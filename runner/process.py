"""Starts a program under a supervisor (supervisor.py) and says how it ended."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from .pages import SYSTEM, Program

SUPERVISOR = Path(__file__).with_name("supervisor.py")
_USES_TENSORFLOW = re.compile(r"\btensorflow\b|\bframework\(\s*[\"']tf")


@dataclass(frozen=True)
class Outcome:
    """How a program ended.

    `exit_status` is None when it was ended at its limit, negative when a signal ended it.
    `cpu_seconds` counts the program and all that it started, Ray's daemons and workers included. Of a worker,
    which nobody waits for, up to its last quarter of a second is missing, because its time is sampled.
    """

    exit_status: int | None
    seconds: float
    cpu_seconds: float
    left_running: list[str]
    left_files: list[str]
    lines: list[tuple[str, str]]
    """What it printed: (stream, line), `stream` being `stdout` or `stderr`."""
    values: dict[str, float] = field(default_factory=dict)
    """The program's own numbers at its end: those of inside.VALUES that are global names of it."""
    error: str | None = None
    """What it died of: the lines of the exception and its causes, or what it said last."""
    updates: int | None = None
    """Steps of the torch optimizer that took the most, in any of its processes; None where none stepped."""
    deprecated: list[tuple[int, str]] = field(default_factory=list)
    """Deprecated calls in its text: its line, and what RLlib or Python says about it."""

    @property
    def stdout(self) -> str:
        """What it printed to standard output."""
        return "".join(f"{line}\n" for stream, line in self.lines if stream == "stdout")


def run_as_on_page(program: Program, limit: float, **more: object) -> Outcome:
    """Run a program of a page, with the files beside it, where the extras are that it needs.

    Args:
        program: the program.
        limit: seconds after which it is ended.
        more: what else `run_program` takes.

    Raises:
        RuntimeError: the program could not be run.
    """
    return run_program(
        program.code,
        file_name=program.file_name,
        language=program.language,
        limit=limit,
        beside={file.name: file.read_text(encoding="utf-8") for file in program.beside},
        python=sys.executable if program.needs in (None, *SYSTEM) else _with_extras(program),
        **more,
    )


def _with_extras(program: Program) -> str:
    """The Python of the environment that has the extras too; it stands beside the one that runs this."""
    python = Path(f"{sys.prefix}-cluster") / "bin" / "python"
    if not python.is_file():
        raise RuntimeError(
            f"{program.file_name} needs {program.needs}, and there is no {python}; "
            "make .venv-cluster/.installed makes it."
        )
    return str(python)


def run_program(
    code: str,
    *,
    file_name: str = "program.py",
    language: str = "python",
    limit: float,
    env: dict[str, str] | None = None,
    cores: Iterable[int] = (),
    on_line: Callable[[str, str], None] = lambda stream, line: None,
    note_written: bool = True,
    beside: dict[str, str] | None = None,
    python: str = sys.executable,
) -> Outcome:
    """Run a program as its reader would: as a file, in an empty folder, with an empty home.

    Args:
        code: the program.
        file_name: the name that tracebacks show.
        language: `python`, `sh` or `bash`.
        limit: seconds after which it is ended.
        env: environment variables to add.
        cores: the CPU cores it may use; all when empty.
        on_line: called with (stream, line) for each line as it is printed.
        note_written: whether to note what its Python processes write outside its folder. The audit hook that
            does so is called at each `id()` too, which takes some 2 % of a training.
        beside: files in its folder, by their names.
        python: the Python that it finds as `python`, with the commands of the packages installed there.

    Raises:
        RuntimeError: the program could not be run.
    """
    if language in ("sh", "bash") and shutil.which("bash") is None:
        raise RuntimeError(
            f"{file_name}: shell programs run in bash, which tells when a pipeline fails; install it."
        )
    job = {
        "code": code,
        "file_name": file_name,
        "language": language,
        "limit": limit,
        "env": env or {},
        "cores": list(cores),
        "without_tensorflow": not any(map(_USES_TENSORFLOW.search, [code, *(beside or {}).values()])),
        "note_written": note_written,
        "beside": beside or {},
        "python": python,
    }
    supervisor = subprocess.Popen(
        [sys.executable, "-E", str(SUPERVISOR)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,  # a Ctrl-C in the terminal reaches the test run, which then closes stdin
    )
    lines: list[tuple[str, str]] = []
    outcome: dict = {}
    try:
        supervisor.stdin.write(json.dumps(job) + "\n")
        supervisor.stdin.flush()
        for text in supervisor.stdout:
            message = json.loads(text)
            if "outcome" in message:
                outcome = message["outcome"]
                break
            lines.append((message["stream"], message["line"]))
            on_line(message["stream"], message["line"])
    finally:
        supervisor.stdin.close()
        supervisor.wait()
        supervisor.stdout.close()
    if not outcome:
        raise RuntimeError(f"The supervisor of {file_name} died with exit status {supervisor.returncode}.")
    # The folder's name means nothing to a reader, and differs from run to run.
    place = f"{outcome.pop('folder')}/work/"
    lines = [(stream, line.replace(place, "")) for stream, line in lines]
    said = [line for stream, line in lines if stream == "stderr" and line.strip()]
    if outcome["exit_status"] and outcome["error"] is None and said:
        # Nothing was raised that Python printed: `sys.exit("a sentence")`, say, or a shell program.
        outcome["error"] = said[-1]
    # Python prints a warning about a line of the program itself, unless the program has turned that off.
    warning = re.compile(rf"{re.escape(file_name)}:(\d+): \w*DeprecationWarning: (.*)")
    warned = [(int(match[1]), match[2]) for line in said if (match := warning.match(line))]
    outcome["deprecated"] = [(line, message) for line, message in outcome["deprecated"]] + warned
    return Outcome(lines=lines, **outcome)
