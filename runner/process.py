"""Starts a program under a supervisor (supervisor.py) and says how it ended."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

SUPERVISOR = Path(__file__).with_name("supervisor.py")
_USES_TENSORFLOW = re.compile(r"\btensorflow\b|\bframework\(\s*[\"']tf")


@dataclass(frozen=True)
class Outcome:
    """How a program ended.

    `exit_status` is None when it was ended at its limit, negative when a signal ended it.
    `cpu_seconds` counts the program, what it started, and Ray's daemons. Ray's worker processes are missing:
    their parent, the raylet, does not wait for them, so the kernel adds their time to nobody's.
    """

    exit_status: int | None
    seconds: float
    cpu_seconds: float
    left_running: list[str]
    left_files: list[str]
    lines: list[tuple[str, str]]
    """What it printed: (stream, line), `stream` being `stdout` or `stderr`."""
    values: dict[str, float] = field(default_factory=dict)
    updates: int | None = None

    @property
    def stdout(self) -> str:
        """What it printed to standard output."""
        return "".join(f"{line}\n" for stream, line in self.lines if stream == "stdout")


def run_program(
    code: str,
    *,
    file_name: str = "program.py",
    language: str = "python",
    limit: float,
    env: dict[str, str] | None = None,
    cores: Iterable[int] = (),
    on_line: Callable[[str, str], None] = lambda stream, line: None,
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
    """
    job = {
        "code": code,
        "file_name": file_name,
        "language": language,
        "limit": limit,
        "env": env or {},
        "cores": list(cores),
        "without_tensorflow": not _USES_TENSORFLOW.search(code),
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
    return Outcome(lines=lines, **outcome)
