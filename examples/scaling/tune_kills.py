"""Ends crash_proof_tune.py twelve times, and checks what is left of each of its trials.

It needs crash_proof_tune.py in the same folder, and Linux.
"""

import atexit
import contextlib
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
PROGRAM = Path(__file__).with_name("crash_proof_tune.py")
SOURCE = PROGRAM.read_text()
EVERY = int(re.search(r"\nEVERY = (\d+)", SOURCE)[1])
# The env steps that an iteration asks for. It takes a few more.
BATCH = int(re.search(r"train_batch_size_per_learner=(\d+)", SOURCE)[1])
TRIALS = json.loads(re.search(r"\nLEARNING_RATES = (\[.*?\])", SOURCE)[1])
TRIALS = [str(lr) for lr in TRIALS]
KILLS = ["start-up"] * 3 + ["training"] * 4 + ["writing"] * 3
KILLS += ["SIGTERM"] * 2  # to the program alone
draw = random.Random(SEED)
draw.shuffle(KILLS)
# A killed Ray cannot tidy up. So it gets its folders in here, by a short path: Ray's
# sockets are in it, and the path of a socket has at most 107 bytes.
temporary = tempfile.TemporaryDirectory(prefix="k", ignore_cleanup_errors=True)
FOLDER, LOG = Path(temporary.name) / "run", Path(temporary.name) / "log"


def check(holds, claim):
    """End with a sentence if a claim does not hold."""
    if not holds:
        print(LOG.read_text(), file=sys.stderr)
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
            fields = stat.read_text(errors="replace").rpartition(")")[2].split()
        except OSError:  # it has just ended
            continue
        if int(fields[3]) == process.pid and fields[0] not in "ZX":
            yield int(stat.parent.name)


def kill(process):
    """SIGKILL to all of them, until none is left."""
    while pids := list(alive(process)):
        for pid in reversed(pids):  # the youngest first, as the trials are
            with contextlib.suppress(ProcessLookupError):  # it has just ended
                os.kill(pid, signal.SIGKILL)
    process.wait()


def printed(trial):
    """The iterations of a trial that this life has printed, with their env steps."""
    line = rf"^lr {re.escape(trial)} +iteration +(\d+) +env steps +([\d,]+).*\n"
    found = re.findall(line, LOG.read_text(), re.MULTILINE)
    return {int(number): int(steps.replace(",", "")) for number, steps in found}


def progress(trial):
    """The iterations that are in the newest whole checkpoint of a trial."""
    whole = sorted((FOLDER / f"lr_{trial}").glob("iteration_*"))
    return json.loads((whole[-1] / "progress.json").read_text()) if whole else []


def touched():
    """When each trial has last changed a checkpoint that is not whole."""
    found = {}
    for partial in FOLDER.glob("lr_*/partial"):
        with contextlib.suppress(FileNotFoundError):  # it has just got its name
            found[partial] = partial.stat().st_ctime_ns
    return found


def being_written(before):
    """The checkpoints that are not whole and that this life has begun."""
    return touched().items() - before.items()


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


def end_with_its_child():
    """Nothing goes on without this program, whatever ends it."""
    if process:
        kill(process)


atexit.register(end_with_its_child)
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))

start_ups, losses, half_written, kills = [], [], 0, 0
print("iterations of each trial: printed, in the newest whole checkpoint, lost")
heads = "".join(f"   {'lr ' + trial:^20s}" for trial in TRIALS)
print(f"kill  moment  {heads}   half-written")
while kills < len(KILLS):
    moment, before = KILLS[kills], touched()
    saved = {trial: progress(trial) for trial in TRIALS}
    process, born = start(), time.monotonic()
    if moment == "start-up":
        time.sleep(draw.uniform(0, min(start_ups, default=8)))
    elif wait_until(lambda: any(map(printed, TRIALS)), process):
        start_ups.append(time.monotonic() - born)
        if moment == "writing":  # wait until a trial begins its next checkpoint
            wait_until(lambda before=before: being_written(before), process)
            time.sleep(draw.uniform(0, 0.02))
        else:
            time.sleep(draw.uniform(0, 4))
        if moment == "SIGTERM":
            process.terminate()
            wait_until(lambda: False, process)
    finished = process.poll() == 0
    kill(process)
    if finished:  # the search was at its end: there is another one to kill
        shutil.rmtree(FOLDER)
        continue

    # Did each trial go on from what the last life left, and what does this one leave?
    row = f"{kills + 1:4d}  {moment:8s}"
    for trial in TRIALS:
        lines, old, new = printed(trial), saved[trial], progress(trial)
        if lines:
            check(not (old and old[-1]["done"]), "a trial at its end stays there")
            numbers = list(range(len(old) + 1, max(lines) + 1))
            check(list(lines) == numbers, "a trial goes on without a gap")
            steps = lines[min(lines)] - (old[-1]["env_steps"] if old else 0)
            check(BATCH <= steps < 2 * BATCH, "the env steps go on where they were")
        kept = [row["env_steps"] for row in new[: len(old)]]
        check(kept == [row["env_steps"] for row in old], "nothing saved is lost")
        trained = max([len(new), *lines])
        lost = trained - len(new)
        # The iteration under way comes on top of those whose result was printed.
        check(lost < EVERY, f"a kill costs a trial at most {EVERY} iterations")
        losses.append(lost)
        row += f"   {trained:6d} {len(new):6d} {lost:6d}"
    half_written += bool(being_written(before))
    print(f"{row}   {'yes' if being_written(before) else 'no':>12s}")
    kills += 1

process = start()  # this life may end as it likes
wait_until(lambda: False, process, limit=600)
check(process.returncode == 0, "the search reaches its target in the end")
kill(process)  # what is left of its Ray
process = start()  # once more, now that there is nothing left to train
wait_until(lambda: False, process)
check(process.returncode == 0, "a search at its end shows its best policy again")
check(not any(map(printed, TRIALS)), "a search at its end is not begun again")
kill(process)
for trial in TRIALS:
    curve = progress(trial)
    check(curve[-1]["done"], "each trial is at its end")
    numbers = [row["iteration"] for row in curve]
    check(numbers == list(range(1, len(curve) + 1)), "each iteration is there once")
    for one, next_one in itertools.pairwise(curve):
        steps = next_one["env_steps"] - one["env_steps"]
        check(BATCH <= steps < 2 * BATCH, "the curve has no gap and no step back")
print(f"kills: {kills}; {half_written} of them left half a checkpoint")
print(f"printed iterations lost: {sum(losses)}; at most {max(losses)} by a trial")
print(f"from a start to its first iteration: {statistics.median(start_ups):.1f} s")
