"""A search is killed in its middle, and Tuner.restore goes on with it. From where?

It needs Linux.
"""

import contextlib
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
MORE = 10  # iterations that each trial trains after it was restored

# The program starts itself once more, as the life to kill, and tells it the folder.
first_life = "FOLDER" in os.environ
temporary = None if first_life else tempfile.TemporaryDirectory(prefix="k")
FOLDER = Path(os.environ["FOLDER"] if first_life else temporary.name)
# A killed Ray cannot tidy up, and Tune leaves a folder with locks. So both write in
# there, by a short path: that of a socket of Ray has at most 107 bytes.
os.environ["RAY_TMPDIR"] = str(FOLDER)
EXPERIMENT = FOLDER / "search"


def newest_checkpoints():
    """The iteration of each trial's newest checkpoint on the disk, by trial."""
    found = sorted(EXPERIMENT.glob("PPO_*/checkpoint_*"))
    return {path.parent.name: EVERY * (int(path.name[-6:]) + 1) for path in found}


def age_of_notes():
    """Seconds since Tune has last written down which trials and checkpoints it has."""
    written = [p.stat().st_mtime for p in EXPERIMENT.glob("experiment_state-*.json")]
    return time.time() - max(written, default=time.time())


def kill(process):
    """SIGKILL to a program and its Ray processes, which are in its session."""
    alive = True
    while alive:
        alive = False
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):  # it has just ended
                state, _, _, session = stat.read_text().rpartition(")")[2].split()[:4]
                if int(session) == process.pid and state not in "ZX":
                    os.kill(int(stat.parent.name), signal.SIGKILL)
                    alive = True
    process.wait()


if not first_life:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # by way of `finally`
    log = FOLDER / "log"
    process = subprocess.Popen(
        [sys.executable, __file__],
        env=os.environ | {"FOLDER": str(FOLDER)},
        stdout=log.open("w"),
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        # Kill it 4 to 8 seconds after a note that surely knows checkpoints of both.
        noted = []
        while len(noted) < 2 or min(noted) < 4 * EVERY or not 4 < age_of_notes() < 8:
            if process.poll() is not None:
                sys.exit(f"The first life ended by itself:\n{log.read_text()}")
            if age_of_notes() < 0.5:
                noted = newest_checkpoints().values()
            time.sleep(0.1)
    finally:
        kill(process)
    at_the_kill, age = newest_checkpoints(), age_of_notes()
    print(f"killed {age:.1f} s after Tune's last note")


class EndsAfterRestore(RLlibCallback):
    """Lets a trial of the first life train without end, and one of the second a bit."""

    def on_train_result(self, *, result, **kwargs):
        result["done"] = not first_life and result["iterations_since_restore"] >= MORE


os.environ["RAY_AIR_NEW_OUTPUT"] = "0"  # with verbose=0 below: no tables while it runs
logging.getLogger("ray.rllib").setLevel(logging.ERROR)  # no banner about API stacks
ray.init(
    "local",
    num_cpus=2,  # for two trials at a time
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
    .callbacks(EndsAfterRestore)
    .debugging(seed=SEED)
)
if tune.Tuner.can_restore(EXPERIMENT):
    tuner = tune.Tuner.restore(str(EXPERIMENT), trainable=PPO, param_space=config)
else:
    tuner = tune.Tuner(
        PPO,
        param_space=config,
        run_config=tune.RunConfig(
            name=EXPERIMENT.name,
            storage_path=str(FOLDER),  # an absolute path: Tune refuses others
            checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=EVERY),
            # If it cannot restore, an error: else Tune begins anew, and says so only
            # in its log.
            failure_config=tune.FailureConfig(fail_fast=True),
            verbose=0,
        ),
    )
results = tuner.fit()
ray.shutdown()
if results.errors:
    sys.exit(f"A trial failed: {results.errors[0]}")

print("learning rate  newest checkpoint  goes on from  lost  trained to")
for trial in sorted(results, key=lambda trial: trial.config["lr"]):
    newest = at_the_kill[Path(trial.path).name]
    end = trial.metrics["training_iteration"]
    begin = end - trial.metrics["iterations_since_restore"]
    print(
        f"{trial.config['lr']:13}  {newest:17d}  {begin:12d}  "
        f"{newest - begin:4d}  {end:10d}"
    )
    if not 0 < begin <= newest or begin % EVERY:
        sys.exit("Tuner.restore does not go on from a checkpoint of the first life.")
    if end - begin != MORE:
        sys.exit("A trial is not at its end.")
