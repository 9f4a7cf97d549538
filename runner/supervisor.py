"""Runs one program and lets nothing of it outlive this process.

Started by process.py as a process of its own. It reads one JSON job from standard input, runs it,
and writes JSON lines: `{"stream": ..., "line": ...}` while the program prints, then `{"outcome": {...}}`.
When standard input closes (the test run was interrupted or killed), it ends the program at once.

What happens inside the program's Python processes is noted there by inside.py.

It is the "child subreaper" (prctl(2)) of the program: whatever the program starts, a daemon in a session
of its own too, stays a descendant of this process, so it can be found, counted and killed.
"""

import contextlib
import ctypes
import json
import os
import re
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
GRACE = 15.0  # seconds in which Ray's own shutdown may finish after the program has ended

FOLDERS = ("work", "home", "tmp", "site", "notes")  # in the job's folder; Ray makes one named ray there
INSIDE = Path(__file__).with_name("inside.py")

# A reader who follows the install line of a page has no TensorFlow. RLlib then starts about twice
# as fast, so programs that do not use TensorFlow run as if it were not installed.
WITHOUT_TENSORFLOW = '\nsys.modules["tensorflow"] = None\n'

# An absolute path in a program's text, but not the end of a URL or of a relative path.
ABSOLUTE_PATH = re.compile(r"(?<![\w.:/~}-])/\w[\w.+-]*(?:/[\w.+-]+)*")

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
        "PATH": f"{Path(job['python']).parent}{os.pathsep}{os.environ.get('PATH', '')}",
    }
    hide = WITHOUT_TENSORFLOW if job["without_tensorflow"] else ""
    (folder / "site" / "sitecustomize.py").write_text(
        INSIDE.read_text(encoding="utf-8") + hide, encoding="utf-8"
    )
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


class CpuMeter:
    """Counts the CPU seconds of all descendants, those too that nobody waits for.

    The kernel adds the time of a process to its parent's when the parent waits for it. The raylet ignores
    SIGCHLD, so the time of Ray's workers is added to nobody's. Children of such a parent are sampled, and
    the last sample counts, unless this process has waited for them after their parent's death.
    """

    TICKS = os.sysconf("SC_CLK_TCK")
    INTERVAL = 0.25  # seconds between two samples
    SHARE = (
        0.005  # of a core that looking for new processes may take, so that this is rarer on a full machine
    )

    def __init__(self):
        self.due = self.search_due = 0.0
        self.samples: dict[tuple[int, int], float] = {}  # (pid, start) of children that nobody waits for
        self._deaf: dict[tuple[int, int], bool] = {}

    def waited_for(self, pid: int) -> None:
        """Forget a process whose time the kernel has added to this one's."""
        for key in [key for key in self.samples if key[0] == pid]:
            del self.samples[key]

    def sample(self) -> None:
        """Read the times of the children that nobody waits for, if that is due."""
        now = time.monotonic()
        if now >= self.search_due:
            before = time.thread_time()
            self._search()
            self.search_due = now + max(self.INTERVAL, (time.thread_time() - before) / self.SHARE)
        elif now >= self.due:
            for pid, start in self.samples:
                found = self._process(pid)
                if found and found[1] == start:
                    self.samples[pid, start] = found[2]
        else:
            return
        self.due = now + self.INTERVAL

    def _search(self) -> None:
        """Find the children that nobody waits for among all descendants."""
        pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
        table = {pid: found for pid in pids if (found := self._process(pid))}
        descendants = {os.getpid()}
        while more := {pid for pid in table if table[pid][0] in descendants and pid not in descendants}:
            descendants |= more
        for pid in descendants - {os.getpid()}:
            parent, start, seconds = table[pid]
            if parent in table and self._is_deaf(parent, table[parent][1]):
                self.samples[pid, start] = seconds

    def seconds(self) -> float:
        """The CPU seconds of all descendants that have ended."""
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime + sum(self.samples.values())

    @classmethod
    def _process(cls, pid: int) -> tuple[int, int, float] | None:
        """Parent, start and CPU seconds (with those of its waited-for children) of a process.

        psutil reads this file and more of them: this takes half of the time.
        """
        try:
            with open(f"/proc/{pid}/stat", "rb") as file:
                stat = file.read()
        except OSError:  # it has just ended
            return None
        fields = stat[stat.rindex(b")") + 2 :].split()  # from the third of proc(5) on
        return int(fields[1]), int(fields[19]), sum(map(int, fields[11:15])) / cls.TICKS

    def _is_deaf(self, pid: int, start: int) -> bool:
        """Whether a process ignores SIGCHLD; asked once it is old enough to have decided."""
        if not self._deaf.get((pid, start)):
            try:
                status = Path(f"/proc/{pid}/status").read_text()
            except OSError:
                return False
            ignored = int(re.search(r"^SigIgn:\s*(\w+)", status, re.MULTILINE)[1], 16)
            self._deaf[pid, start] = bool(ignored >> (signal.SIGCHLD - 1) & 1)
        return self._deaf[pid, start]


def _reap(pid: int, meter: CpuMeter) -> int | None:
    """Collect every child that has ended; the wait status of `pid` if it is among them."""
    status = None
    while True:
        try:
            done, wait_status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return status
        if done == 0:
            return status
        meter.waited_for(done)
        if done == pid:
            status = wait_status


def _kill_all(pid: int, meter: CpuMeter) -> None:
    # Until each is collected: with many threads, a process is a zombie before it can be waited for.
    while processes := psutil.Process().children(recursive=True):
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        time.sleep(0.02)
        _reap(pid, meter)


class NamedPlaces:
    """Finds files left where the program's text names an absolute path, by whatever means they were written.

    Other processes use the same folders. So what appears there is the program's only if its text names it.
    """

    def __init__(self, code: str):
        self.words = set(re.findall(r"[\w.+-]+", code))
        self.before: dict[Path, set[str]] = {}
        self.beginnings: dict[Path, set[str]] = {}
        for match in ABSOLUTE_PATH.finditer(code):
            folder, rest = Path(match[0]), []
            while not folder.is_dir():
                folder, rest = folder.parent, [folder.name, *rest]
            if folder == Path("/") and not rest:
                continue
            self.before.setdefault(folder, self._entries(folder))
            goes_on = match[0][-1] in "._-" or code[match.end() : match.end() + 1] in tuple("{%$*")
            self.beginnings.setdefault(folder, set()).update(rest if len(rest) == 1 and goes_on else [])

    @staticmethod
    def _entries(folder: Path) -> set[str]:
        try:
            return set(os.listdir(folder))
        except OSError:  # not ours to read
            return set()

    def left(self) -> list[Path]:
        """New entries that the text names.

        Whole (the folder and `policy.pt`), by their start (`policy_{seed}` in an f-string), or apart from
        their folder (`cd` to it, then `touch policy.pt`).
        """
        found = []
        for folder, before in self.before.items():
            for entry in sorted(self._entries(folder) - before):
                if entry in self.words or entry.startswith(tuple(self.beginnings[folder])):
                    found.append(folder / entry)
        return found


def _outside(folder: Path, named: NamedPlaces) -> list[str]:
    """Say what the program left outside its own folder, and remove what is surely its own.

    That is what it was seen to make, or what its text names in full. What only begins like a name in its
    text stays: another process may have made it at the same time.
    """
    note = folder / "notes" / "written"
    noted = [Path(line) for line in note.read_text(encoding="utf-8").splitlines()] if note.exists() else []
    left = sorted({path for path in [*noted, *named.left()] if os.path.lexists(path)})
    for path in reversed(left):  # what is inside a folder before the folder
        if path not in noted and path.name not in named.words:
            continue
        with contextlib.suppress(OSError):  # what others put into such a folder stays
            path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
    return [str(path) for path in left if not any(other in path.parents for other in left)]


def _notes(folder: Path, pid: int) -> dict:
    """What inside.py noted: the program's own numbers and error, the updates, the deprecated calls."""
    notes = folder / "notes"
    end = notes / f"end-{pid}.json"
    deprecated = notes / "deprecated"
    updates = [int.from_bytes(file.read_bytes(), "little") for file in notes.glob("updates-*")]
    return (
        json.loads(end.read_text(encoding="utf-8")) if end.exists() else {"values": {}, "error": None}
    ) | {
        "updates": max(updates, default=None),
        "deprecated": [json.loads(line) for line in deprecated.read_text(encoding="utf-8").splitlines()]
        if deprecated.exists()
        else [],
    }


def _files_left(folder: Path, given: set[str]) -> list[str]:
    """Files outside the temporary folder that the program left; dot files are other libraries' caches."""
    left = [f"../{name}" for name in sorted(set(os.listdir(folder)) - {*FOLDERS, "ray"})]
    for place in (folder / "work", folder / "home"):
        for path in sorted(place.rglob("*")):
            relative = path.relative_to(place)
            hidden = any(part.startswith(".") or part == "__pycache__" for part in relative.parts)
            if path.is_file() and not hidden and relative.as_posix() not in given:
                left.append(relative.as_posix())
    return left


def _run(job: dict, folder: Path, cancelled: threading.Event) -> dict:
    for name in FOLDERS:
        (folder / name).mkdir()
    if job["note_written"]:
        (folder / "notes" / "note-written").touch()
    program = folder / "work" / job["file_name"]
    program.write_text(job["code"], encoding="utf-8")
    for name, text in job["beside"].items():
        (program.parent / name).write_text(text, encoding="utf-8")
    command = {
        "python": [job["python"], program.name],
        # POSIX's sh has had `pipefail` since 2024 only, and Debian's has not.
        "sh": ["bash", "--posix", "-euo", "pipefail", program.name],
        "bash": ["bash", "-euo", "pipefail", program.name],
    }[job["language"]]
    named = NamedPlaces(job["code"])
    meter = CpuMeter()
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
        meter.sample()
        status = _reap(process.pid, meter)
    seconds = time.monotonic() - start

    left_running: list[str] = []
    if status is not None and not cancelled.is_set():
        deadline = time.monotonic() + GRACE
        while (processes := _descendants()) and time.monotonic() < deadline and not cancelled.is_set():
            time.sleep(0.05)
            meter.sample()
            _reap(process.pid, meter)
        left_running = sorted(_name(process) for process in processes)
    _kill_all(process.pid, meter)
    reader.join(timeout=2)
    process.returncode = 0  # already reaped: keeps Popen from waiting for it
    return _notes(folder, process.pid) | {
        "exit_status": None if status is None else os.waitstatus_to_exitcode(status),
        "seconds": round(seconds, 2),
        "cpu_seconds": round(meter.seconds(), 2),
        "left_running": left_running,
        "left_files": _files_left(folder, {program.name, *job["beside"]}) + _outside(folder, named),
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
        _kill_all(0, CpuMeter())
        shutil.rmtree(folder, ignore_errors=True)
    _say({"outcome": outcome})
    # The thread on standard input may still block in read(); there is nothing left to tidy.
    os._exit(0)


if __name__ == "__main__":
    main()
