"""A search is killed in its middle, and Tuner.restore goes on with it. From where?

It needs Linux.
"""

import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import ray
from ray import tune
from ray.rllib.algorithms.ppo import PPO, PPOConfig
from ray.rllib.callbacks.callbacks import RLlibCallback

SEED = int(os.environ.get("SEED", 0))
EVERY = 5  # iterations from one checkpoint to the next
LIMIT = 300  # seconds until the kill has to have come

# The program starts itself once more, as the life to kill, and tells it the folder.
first_life = "FOLDER" in os.environ
# Iterations that each trial trains in this life. The first life is killed long before,
# but if nobody is left to kill it, it ends.
ITERATIONS = 1000 if first_life else 10
temporary = None
if not first_life:
    temporary = tempfile.TemporaryDirectory(prefix="k", ignore_cleanup_errors=True)
FOLDER = Path(os.environ["FOLDER"] if first_life else temporary.name)
# A killed Ray cannot tidy up, and Tune leaves a folder with locks. So both write in
# there, by a short path: that of a socket of Ray has at most 107 bytes.
os.environ["RAY_TMPDIR"] = str(FOLDER)
EXPERIMENT = FOLDER / "search"


def iteration_of(checkpoint):
    """Tune numbers a trial's checkpoints from 0 on."""
    return EVERY * (int(Path(checkpoint).name[-6:]) + 1)


def newest_checkpoints():
    """The iteration of each trial's newest checkpoint on the disk, by trial."""
    # The last file that RLlib writes: without it, a checkpoint is not whole.
    found = sorted(EXPERIMENT.glob("PPO_*/checkpoint_*/algorithm_state.pkl"))
    return {file.parts[-3]: iteration_of(file.parent) for file in found}


def notes():
    """The files in which Tune writes down which trials and checkpoints it has."""
    return list(EXPERIMENT.glob("experiment_state-*.json"))


def age_of_notes():
    """Seconds since Tune has last written them."""
    return time.time() - max((p.stat().st_mtime for p in notes()), default=time.time())


def kill(process):
    """SIGKILL to a program and its Ray processes, which are in its session."""
    alive = True
    while alive:
        alive = False
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):  # it has just ended
                fields = stat.read_text(errors="replace").rpartition(")")[2].split()
                if int(fields[3]) == process.pid and fields[0] not in "ZX":
                    os.kill(int(stat.parent.name), signal.SIGKILL)
                    alive = True
    process.wait()


if not first_life:
    for number in signal.SIGTERM, signal.SIGHUP:
        signal.signal(number, lambda *_: sys.exit(143))  # by way of `finally`
    log, deadline = FOLDER / "log", time.monotonic() + LIMIT
    process = subprocess.Popen(
        [sys.executable, __file__],
        env=os.environ | {"FOLDER": str(FOLDER), "TMPDIR": str(FOLDER)},
        stdout=log.open("w"),
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        # Kill it 4 to 8 seconds after a note that surely knows checkpoints of both.
        noted = []
        while len(noted) < 2 or min(noted) < 4 * EVERY or not 4 < age_of_notes() < 8:
            if process.poll() is not None or time.monotonic() > deadline:
                sys.exit(f"There was no right moment to kill it:\n{log.read_text()}")
            if age_of_notes() < 0.5:
                noted = newest_checkpoints().values()
            time.sleep(0.1)
    finally:
        kill(process)
    at_the_kill, age = newest_checkpoints(), age_of_notes()
    print(f"killed {age:.1f} s after Tune's last note")


class EndsByItself(RLlibCallback):
    """Ends a trial after so many iterations of this life."""

    def on_train_result(self, *, result, **kwargs):
        result["done"] = result["iterations_since_restore"] >= ITERATIONS


os.environ["RAY_AIR_NEW_OUTPUT"] = "0"  # with verbose=0 below: no tables while it runs
logging.getLogger("ray.rllib").setLevel(logging.ERROR)  # no banner about API stacks
ray.init(
    "local",
    num_cpus=2,  # a trial takes 1 + num_env_runners; with fewer it waits for ever
    include_dashboard=False,
    log_to_driver=False,
    logging_level="error",
)
config = (
    PPOConfig()
    .environment("CartPole-v1")
    .env_runners(num_env_runners=0, num_envs_per_env_runner=4)
    .training(lr=tune.grid_search([3e-4, 3e-3]), train_batch_size_per_learner=512)
    .training(minibatch_size=256, num_epochs=2)
    .callbacks(EndsByItself)
    .debugging(seed=SEED)
)
noted = {}  # the iteration of each trial's newest checkpoint, as Tune has noted it
if tune.Tuner.can_restore(EXPERIMENT):
    # Half a file is an error here. Tune would begin the search anew, and say so only
    # in its log.
    for file in notes():
        json.loads(file.read_text())
    tuner = tune.Tuner.restore(str(EXPERIMENT), trainable=PPO, param_space=config)
    for trial in tuner.get_results():  # what is in the notes, before it goes on
        noted[Path(trial.path).name] = iteration_of(trial.checkpoint.path)
else:
    tuner = tune.Tuner(
        PPO,
        param_space=config,
        run_config=tune.RunConfig(
            name=EXPERIMENT.name,
            storage_path=str(FOLDER),  # an absolute path: Tune refuses others
            # All of them stay: else the one that Tune has noted may be gone.
            checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=EVERY),
            verbose=0,
        ),
    )
results = tuner.fit()
ray.shutdown()
if results.errors:
    sys.exit(f"A trial failed: {results.errors[0]}")
if first_life:
    sys.exit("Nobody has killed it.")

print("learning rate  newest checkpoint  noted  goes on from  lost  trained to")
for trial in sorted(results, key=lambda trial: trial.config["lr"]):
    name, end = Path(trial.path).name, trial.metrics["training_iteration"]
    begin = end - trial.metrics["iterations_since_restore"]
    newest = at_the_kill[name]
    print(
        f"{trial.config['lr']:13}  {newest:17d}  {noted[name]:5d}  {begin:12d}  "
        f"{newest - begin:4d}  {end:10d}"
    )
    if begin != noted[name] or not 0 < begin <= newest:
        sys.exit("Tuner.restore does not go on from the newest noted checkpoint.")
    if end - begin != ITERATIONS:
        sys.exit("A trial is not at its end.")
