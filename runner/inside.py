"""Runs inside each Python process of a program, and notes for the supervisor what really happened there.

The supervisor installs it as `sitecustomize.py`: Python imports it before the program's first line, in Ray's
workers too. It must be quick, must not fail, and changes nothing of what the program does or prints.
It imports no large module itself; what it has to do with one happens right after the program imported that.

It leaves these notes in the job's folder (`notes/`):

    end-PID.json     numbers among the program's global names, and the error that it died of
    updates-PID      how many steps the busiest torch optimizer of that process took
    deprecated       calls in the program's text of which RLlib says that they are deprecated
    written          paths outside the job's folder that did not exist, and were to be written
"""

import atexit
import os
import sys

FOLDER = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
NOTES = os.path.join(FOLDER, "notes")
WORK = os.path.join(FOLDER, "work") + os.sep
VALUES = ("TARGET", "greedy_return", "env_steps", "iteration", "updates")
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
PATHS_OF_EVENT = {  # audit events that make a file or folder, and which argument is its path
    "open": 0,
    "os.mkdir": 0,
    "os.link": 1,
    "os.rename": 1,
    "os.symlink": 1,
    "sqlite3.connect": 0,
}


def _append(note: str, line: str) -> None:
    with open(os.path.join(NOTES, note), "a", encoding="utf-8", errors="replace") as file:
        file.write(line + "\n")


def _number(scope: dict, name: str) -> float | None:
    """The number that `name` is in `scope`, or in the one object there that has it (a callback, say)."""
    found = [scope[name]] if name in scope else []
    if not found and name != "TARGET":
        owners = {
            id(value): value for value in list(scope.values()) if not isinstance(value, type | type(sys))
        }
        found = [vars(value)[name] for value in owners.values() if name in getattr(value, "__dict__", ())]
    if len(found) != 1 or isinstance(found[0], str | bytes):
        return None
    try:
        return float(found[0])
    except Exception:  # not a number; what a program calls so is its own affair
        return None


def _error(error: BaseException) -> str:
    """The lines of an error and its causes, without the source lines that a traceback repeats."""
    import re
    import traceback

    lines: list[str] = []
    seen: list[BaseException] = []
    while error is not None and error not in seen:
        seen.append(error)
        remote = getattr(error, "traceback_str", None)  # of Ray's RayTaskError, which carries the real error
        if isinstance(remote, str):
            error = error.cause
        text = "".join(traceback.format_exception_only(error))
        text = re.sub(r"\x1b\[[0-9;]*m", "", text)
        # A SyntaxError and Ray's errors about actors contain frames, with the source lines under them.
        frames = re.search(r'^ +File ".*", line \d+', text, re.MULTILINE)
        lines += [line for line in text.splitlines() if not (frames and line.startswith(" "))]
        error = error.__cause__
    return "\n".join(lines)


def _note_end(pid: int) -> None:
    if os.getpid() != pid:
        return  # a fork of the program's process
    import json

    values = {name: _number(vars(sys.modules["__main__"]), name) for name in VALUES}
    # Python sets sys.last_value when it prints an exception that nobody caught, and only then.
    error = getattr(sys, "last_value", None)
    with open(os.path.join(NOTES, f"end-{pid}.json"), "w", encoding="utf-8") as file:
        json.dump(
            {
                "values": {name: value for name, value in values.items() if value is not None},
                "error": None if error is None else _error(error),
            },
            file,
        )


def _count_updates(optimizer_module) -> None:
    """Count the steps of each torch optimizer, where a process that is killed leaves them, too."""
    import mmap
    import weakref

    steps = weakref.WeakKeyDictionary()
    counter = None

    def after_fork() -> None:
        nonlocal counter
        counter = None
        steps.clear()

    def after_step(optimizer, args, kwargs) -> None:
        nonlocal counter
        steps[optimizer] = count = steps.get(optimizer, 0) + 1
        if counter is None:
            with open(os.path.join(NOTES, f"updates-{os.getpid()}"), "w+b") as file:
                file.write(bytes(8))
                file.flush()
                counter = mmap.mmap(file.fileno(), 8)
        if count > int.from_bytes(counter[:], "little"):
            counter[:] = count.to_bytes(8, "little")

    os.register_at_fork(after_in_child=after_fork)
    optimizer_module.register_optimizer_step_post_hook(after_step)


def _caller_of_deprecated(frame, deprecation_file: str):
    """The frame that called what is deprecated: RLlib calls deprecated functions of its own, too."""

    def file(frame) -> str:
        return frame.f_code.co_filename

    while frame is not None and file(frame) != deprecation_file:  # logging's own
        frame = frame.f_back
    ways = 0
    while frame is not None and file(frame) == deprecation_file:
        frame = frame.f_back
        ways += 1
    if ways > 1 or frame is None:
        return frame  # a decorator's wrapper warned: this frame called it
    # The deprecated function itself warned. It may have been called by its override in a subclass, and a
    # constructor by the code that dataclasses makes.
    alike = {frame.f_code.co_name}
    if alike & {"__init__", "__post_init__"}:
        alike = {"__init__", "__post_init__"}
    while frame is not None and not file(frame).startswith(WORK) and frame.f_code.co_name in alike:
        frame = frame.f_back
    return frame


def _note_deprecations(deprecation_module) -> None:
    """Listen to the logger by which RLlib says that a call is deprecated.

    The programs set Ray's loggers to ERROR. So this logger gets a level of its own, and a filter that lets
    through only what would have been printed without it.
    """
    import json
    import logging

    logger = getattr(deprecation_module, "logger", None)
    if logger is None or logger.level:
        return  # a module that passes on the other's names, or the program has chosen its level
    logger.setLevel(logging.WARNING)

    def note(record: logging.LogRecord) -> bool:
        frame = _caller_of_deprecated(sys._getframe(1), deprecation_module.__file__)
        if frame is not None and frame.f_code.co_filename.startswith(WORK):
            message = record.getMessage().removeprefix("DeprecationWarning: ")
            message = message.removesuffix(" This will raise an error in the future!")
            _append("deprecated", json.dumps([frame.f_lineno, message]))
        return record.levelno >= logger.parent.getEffectiveLevel()

    logger.addFilter(note)


class _AfterImport:
    """An entry of `sys.meta_path` that calls a function with a module that has just been imported."""

    def __init__(self, actions: dict):
        self.actions = actions

    def find_spec(self, name: str, path=None, target=None):
        """Find what the others find; let its loader call the action afterwards."""
        action = self.actions.pop(name, None)
        if action is None:
            return None
        from importlib.util import find_spec

        spec = find_spec(name)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_and_act(module) -> None:
                execute(module)
                action(module)

            spec.loader.exec_module = execute_and_act
        return spec


def _note_written(event: str, arguments: tuple, argument_of=PATHS_OF_EVENT.get) -> None:
    """An audit hook: notes a path outside the job's folder that is about to be made."""
    index = argument_of(event)
    if index is None:
        return
    path = arguments[index]
    if event == "open" and not (isinstance(arguments[2], int) and arguments[2] & WRITING):
        return
    try:
        if isinstance(path, int):
            return
        path = os.path.abspath(os.fsdecode(path))
        # Python's own compiled files belong to the installation.
        if path.startswith((FOLDER + os.sep, "/proc/")) or "__pycache__" in path or os.path.lexists(path):
            return
        path = os.path.realpath(path)
        if not path.startswith(FOLDER + os.sep):
            _append("written", path)
    except Exception:  # what cannot be noted must not harm the program
        return


def _start() -> None:
    if os.path.realpath(sys.orig_argv[-1]).startswith(WORK):  # not a worker of Ray, nor another tool
        atexit.register(_note_end, os.getpid())
    actions = {
        "torch.optim.optimizer": _count_updates,
        "ray._common.deprecation": _note_deprecations,
        "ray.rllib.utils.deprecation": _note_deprecations,  # its place in older releases of Ray
    }
    sys.meta_path.insert(0, _AfterImport(actions))
    if os.path.exists(os.path.join(NOTES, "note-written")):
        sys.addaudithook(_note_written)


_start()
