"""Kills crash_proof.py with all of its Ray twenty times, and checks what is left of it.

It needs crash_proof.py in the same folder, and Linux.
"""

import atexit
import contextlib
import functools
import itertools
import json
import os
import random
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SEED = int(os.environ.get("SEED", 0))
PROGRAM = Path(__file__).with_name("crash_proof.py")
EVERY = int(re.search(r"\nEVERY = (\d+)", PROGRAM.read_text())[1])
# The env steps that an iteration asks for. It takes a few more.
BATCH = int(re.search(r"train_batch_size_per_learner=(\d+)", PROGRAM.read_text())[1])
KILLS = ["start-up"] * 5 + ["training"] * 5 + ["writing"] * 5
KILLS += ["SIGTERM"] * 3 + ["TERM all"] * 2  # to the program alone; to Ray's, too
draw = random.Random(SEED)
draw.shuffle(KILLS)
# A killed Ray cannot tidy up. So it gets its folders in here, by a short path: Ray's
# sockets are in it, and the path of a socket has at most 107 bytes.
temporary = tempfile.TemporaryDirectory(prefix="k")
FOLDER, LOG = Path(temporary.name) / "run", Path(temporary.name) / "log"
PARTIAL = FOLDER / "partial"


def check(holds, claim):
    """End with a sentence if a claim does not hold."""
    if not holds:
        print(LOG.read_text(), file=sys.stderr)
        kill(process)
        sys.exit(f"It does not hold: {claim}.")


def start():
    """A life: the program, in a session of its own, which its Ray processes share."""
    return subprocess.Popen(
        [sys.executable, "-u", PROGRAM],
        env=os.environ
        | {"CHECKPOINTS": str(FOLDER), "SEED": str(SEED)}
        | {"RAY_TMPDIR": temporary.name, "TMPDIR": temporary.name},
        stdout=LOG.open("w"),
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def alive(process):
    """The program and its Ray processes, as far as they run."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, session = stat.read_text().rpartition(")")[2].split()[:4]
        except OSError:  # it has just ended
            continue
        if int(session) == process.pid and state not in "ZX":
            yield int(stat.parent.name)


def send(number, process):
    """A signal to each of them."""
    for pid in alive(process):
        with contextlib.suppress(ProcessLookupError):  # it has just ended
            os.kill(pid, number)


def kill(process):
    """SIGKILL, until none is left."""
    while any(alive(process)):
        send(signal.SIGKILL, process)
    process.wait()


def printed():
    """The iterations that this life has printed, with their env steps."""
    lines = re.findall(r"iteration +(\d+) +env steps +([\d,]+) .*\n", LOG.read_text())
    return {int(number): int(steps.replace(",", "")) for number, steps in lines}


def newest():
    """The iteration of the newest whole checkpoint, and the curve that is in it."""
    whole = sorted(FOLDER.glob("iteration_*"))
    if not whole:
        return 0, []
    curve = json.loads((whole[-1] / "progress.json").read_text())
    return int(whole[-1].name.removeprefix("iteration_")), curve


def touched(before=None):
    """When the checkpoint that is not whole was last changed, if not at `before`."""
    try:
        now = PARTIAL.stat().st_ctime_ns
    except FileNotFoundError:
        return None
    return None if now == before else now


def wait_until(condition, process, limit=120):
    """False if the program ended first."""
    deadline = time.monotonic() + limit
    while not condition():
        if process.poll() is not None:
            return False
        check(time.monotonic() < deadline, f"the program does something in {limit} s")
        time.sleep(0.001)
    return True


process = None


def end_with_its_child(*_):
    """Nothing goes on without this program, whatever ends it."""
    if process:
        kill(process)


atexit.register(end_with_its_child)
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))

start_ups, losses, half_written, saved, curve = [], [], 0, 0, []
print("kill  moment     trained to  newest whole  lost  half-written")
while len(losses) < len(KILLS):
    moment, before = KILLS[len(losses)], touched()
    process, born = start(), time.monotonic()
    if moment == "start-up":
        time.sleep(draw.uniform(0, min(start_ups, default=5)))
    elif wait_until(printed, process):
        start_ups.append(time.monotonic() - born)
        if moment == "writing":  # wait until the next checkpoint is begun
            wait_until(functools.partial(touched, before), process)
            time.sleep(draw.uniform(0, 0.02))
        else:
            time.sleep(draw.uniform(0, 4))
        if moment == "SIGTERM":
            process.terminate()
            wait_until(lambda: False, process)
            check(process.returncode in (0, 143), "SIGTERM ends it with status 143")
        elif moment == "TERM all":
            send(signal.SIGTERM, process)
            wait_until(lambda: False, process)
    finished = process.poll() == 0
    kill(process)
    if finished:  # it has reached its target: there is another training to kill
        shutil.rmtree(FOLDER)
        saved, curve = 0, []
        continue

    # Did this life go on from what the last one left, and what does it leave?
    lines = printed()
    going_on = re.search(r"^going on from iteration (\d+)$", LOG.read_text(), re.M)
    if going_on:
        check(int(going_on[1]) == saved, "it goes on from the newest whole checkpoint")
    if lines:
        check(min(lines) == saved + 1, "its first iteration is the one after that")
        steps = lines[min(lines)] - (curve[-1]["env_steps"] if curve else 0)
        check(BATCH <= steps < 2 * BATCH, "the env steps go on from where they were")
    trained = max(lines, default=saved)
    saved, curve = newest()
    lost, partial = trained - saved, bool(touched(before))
    check(0 <= lost <= EVERY, f"a kill costs at most {EVERY} iterations")
    check(lost == 0 or moment != "SIGTERM", "SIGTERM costs nothing")
    losses.append(lost)
    half_written += partial
    print(
        f"{len(losses):4d}  {moment:9s}  {trained:10d}  {saved:12d}  {lost:4d}  "
        f"{'yes' if partial else 'no':>12s}"
    )

process = start()  # this life may end as it likes
wait_until(lambda: False, process, limit=600)
check(process.returncode == 0, "the training reaches its target in the end")
kill(process)  # what is left of its Ray
saved, curve = newest()
iterations = [row["iteration"] for row in curve]
check(iterations == list(range(1, saved + 1)), "each iteration is in the curve once")
for one, next_one in itertools.pairwise(curve):
    steps = next_one["env_steps"] - one["env_steps"]
    check(BATCH <= steps < 2 * BATCH, "the curve has no gap and no step back")
    check(next_one["lr"] <= one["lr"], "the learning rate goes on falling")
check(half_written > 0, "some kill leaves half a checkpoint")
print(f"kills: {len(losses)}; {half_written} of them left half a checkpoint")
print(f"iterations lost: {sum(losses)}; at most {max(losses)} at a time")
print(f"the curve at the end: iterations 1 to {saved}, each of them once")
print(f"from a start to its first iteration: {statistics.median(start_ups):.1f} s")
