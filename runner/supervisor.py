"""Runs one program and lets nothing of it outlive this process.

Started by process.py as a process of its own. It reads one JSON job from standard input, runs it,
and writes JSON lines: `{"stream": ..., "line": ...}` while the program prints, then `{"outcome": {...}}`.
When standard input closes (the test run was interrupted or killed), it ends the program at once.

It is the "child subreaper" (prctl(2)) of the program: whatever the program starts, a daemon in a session
of its own too, stays a descendant of this process, so it can be found, counted and killed.
"""

import contextlib
import ctypes
import json
import os
import resource
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil

PR_SET_CHILD_SUBREAPER = 36
GRACE = 8.0  # seconds in which Ray's own shutdown may finish after the program has ended

# A reader who follows the install line of a page has no TensorFlow. RLlib then starts about twice
# as fast, so programs that do not use TensorFlow run as if it were not installed.
WITHOUT_TENSORFLOW = 'import sys\n\nsys.modules["tensorflow"] = None\n'

_printing = threading.Lock()


def _say(message: dict) -> None:
    with _printing:
        try:
            sys.stdout.write(json.dumps(message) + "\n")
            sys.stdout.flush()
        except BrokenPipeError:  # nobody listens any more; the clean-up goes on
            pass


def _forward(process: subprocess.Popen) -> None:
    """Pass on the lines of both streams, in the order in which they were written.

    When both have something, standard output goes first: what a program printed before it crashed
    then stands before its traceback.
    """
    streams = {process.stdout.fileno(): "stdout", process.stderr.fileno(): "stderr"}
    pending = dict.fromkeys(streams, b"")
    with selectors.DefaultSelector() as selector:
        for fd in streams:
            selector.register(fd, selectors.EVENT_READ)
        while selector.get_map():
            ready = {key.fd for key, _ in selector.select()}
            for fd in [fd for fd in streams if fd in ready]:
                data = os.read(fd, 1 << 16)
                *lines, pending[fd] = (pending[fd] + data).split(b"\n")
                if not data:
                    selector.unregister(fd)
                    lines += [pending[fd]] if pending[fd] else []
                for line in lines:
                    _say({"stream": streams[fd], "line": line.decode(errors="replace")})


def _environment(folder: Path, job: dict) -> dict[str, str]:
    unwanted = ("RAY_", "PYTEST_", "TF_", "RLLIB_")
    env = {name: value for name, value in os.environ.items() if not name.startswith(unwanted)}
    env.pop("PYTHONPATH", None)  # an example imports nothing of this repository
    env |= {
        "HOME": str(folder / "home"),
        "TMPDIR": str(folder / "tmp"),
        "RAY_TMPDIR": str(folder),  # short: the path of a Unix socket holds at most 107 bytes
        "PYTHONUNBUFFERED": "1",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
    }
    if job["without_tensorflow"]:
        (folder / "site").mkdir()
        (folder / "site" / "sitecustomize.py").write_text(WITHOUT_TENSORFLOW)
        env["PYTHONPATH"] = str(folder / "site")
    return env | job["env"]


def _descendants() -> list[psutil.Process]:
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.NoSuchProcess:
            pass
    return found


def _name(process: psutil.Process) -> str:
    try:
        return process.name()
    except psutil.NoSuchProcess:
        return "?"


def _reap(pid: int) -> int | None:
    """Collect every child that has ended; the wait status of `pid` if it is among them."""
    status = None
    while True:
        try:
            done, wait_status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return status
        if done == 0:
            return status
        if done == pid:
            status = wait_status


def _kill_all(pid: int) -> None:
    while processes := _descendants():
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        time.sleep(0.02)
        _reap(pid)
    _reap(pid)


def _files_left(folder: Path, program: str) -> list[str]:
    """Files outside the temporary folder that the program left; dot files are other libraries' caches."""
    left = []
    for place in (folder / "work", folder / "home"):
        for path in sorted(place.rglob("*")):
            relative = path.relative_to(place)
            hidden = any(part.startswith(".") or part == "__pycache__" for part in relative.parts)
            if path.is_file() and not hidden and relative.as_posix() != program:
                left.append(relative.as_posix())
    return left


def _run(job: dict, folder: Path, cancelled: threading.Event) -> dict:
    for name in ("work", "home", "tmp"):
        (folder / name).mkdir()
    program = folder / "work" / job["file_name"]
    program.write_text(job["code"], encoding="utf-8")
    command = {
        "python": [sys.executable, program.name],
        "sh": ["sh", "-eu", program.name],
        "bash": ["bash", "-euo", "pipefail", program.name],
    }[job["language"]]
    start = time.monotonic()
    process = subprocess.Popen(
        command,
        cwd=program.parent,
        env=_environment(folder, job),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        preexec_fn=(lambda: os.sched_setaffinity(0, job["cores"])) if job["cores"] else None,
    )
    reader = threading.Thread(target=_forward, args=(process,), daemon=True)
    reader.start()

    status = None
    while status is None and not cancelled.is_set() and time.monotonic() - start < job["limit"]:
        time.sleep(0.02)
        status = _reap(process.pid)
    seconds = time.monotonic() - start

    left_running: list[str] = []
    if status is not None and not cancelled.is_set():
        deadline = time.monotonic() + GRACE
        while (processes := _descendants()) and time.monotonic() < deadline and not cancelled.is_set():
            time.sleep(0.05)
            _reap(process.pid)
        left_running = sorted(_name(process) for process in processes)
    _kill_all(process.pid)
    reader.join(timeout=2)
    process.returncode = 0  # already reaped: keeps Popen from waiting for it
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "exit_status": None if status is None else os.waitstatus_to_exitcode(status),
        "seconds": round(seconds, 2),
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 2),
        "left_running": left_running,
        "left_files": _files_left(folder, job["file_name"]),
        "folder": str(folder),
    }


def main() -> None:
    """Run the job on standard input."""
    job = json.loads(sys.stdin.readline())
    cancelled = threading.Event()

    def cancel(*_: object) -> None:
        cancelled.set()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, cancel)
    threading.Thread(target=lambda: (sys.stdin.read(), cancel()), daemon=True).start()
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    folder = Path(tempfile.mkdtemp(prefix="rbe-"))
    try:
        outcome = _run(job, folder, cancelled)
    finally:
        _kill_all(0)
        shutil.rmtree(folder, ignore_errors=True)
    _say({"outcome": outcome})
    # The thread on standard input may still block in read(); there is nothing left to tidy.
    os._exit(0)


if __name__ == "__main__":
    main()
