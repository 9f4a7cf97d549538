"""What one exception in an environment costs, with five settings of RLlib."""

import logging
import os
import sys
import tempfile
import time
from pathlib import Path

os.environ["RAY_DEDUP_LOGS_SKIP_REGEX"] = "."  # Ray's own words about dead processes

import ray
import torch
from gymnasium.envs.classic_control import CartPoleEnv
from ray.rllib.algorithms.ppo import PPOConfig

SEED = int(os.environ.get("SEED", 0))
SETTINGS = {
    "RLlib's defaults": {},
    "no delay": {"delay_between_env_runner_restarts_s": 0},
    "in place": {"restart_failed_sub_environments": True},
    "no restart, ignore": {
        "restart_failed_env_runners": False,
        "ignore_env_runner_failures": True,
    },
    "no restart": {"restart_failed_env_runners": False},
}

torch.set_num_threads(1)  # so small a network is slower with more threads
logging.getLogger("ray.rllib").setLevel(logging.ERROR)  # no banner about API stacks
for part in "utils.actor_manager", "env.env_runner_group":
    logging.getLogger(f"ray.rllib.{part}").setLevel(logging.CRITICAL)
ray.init(
    "local",
    num_cpus=3,
    include_dashboard=False,
    log_to_driver=False,
    logging_level="error",
)
folder = tempfile.TemporaryDirectory()


class CountedCartPole(CartPoleEnv):
    """Writes one byte for each step, and raises once when it is told to."""

    def __init__(self, env_config):
        super().__init__()
        self.raises_in = None  # so many steps
        self.steps = os.open(
            env_config["steps"], os.O_CREAT | os.O_WRONLY | os.O_APPEND
        )

    def step(self, action):
        if self.raises_in is not None:
            self.raises_in -= 1
            if self.raises_in < 0:
                raise ConnectionError("the simulator is gone")
        os.write(self.steps, b".")
        return super().step(action)


def arm(env_runner):
    """Let the environment of this env runner raise in the middle of what it samples."""
    env_runner.env.unwrapped.envs[0].unwrapped.raises_in = 200


def timed_train(algo):
    start = time.perf_counter()
    result = algo.train()
    return time.perf_counter() - start, result


print("                       seconds of train()  env steps    rounds    both env")
print("fault_tolerance()     before  fault   next      lost   dropped  runners again")
rows = {}
for name, settings in SETTINGS.items():
    steps = Path(folder.name) / name.replace(" ", "_")
    config = (
        PPOConfig()
        .environment(CountedCartPole, env_config={"steps": str(steps)})
        .env_runners(num_env_runners=2)
        .training(train_batch_size_per_learner=1000, minibatch_size=250, num_epochs=2)
        .fault_tolerance(**settings)
        .debugging(seed=SEED, log_level="ERROR")
    )
    algo = config.build_algo()
    algo.train()  # the first one is slower
    before, _ = timed_train(algo)
    algo.env_runner_group.foreach_env_runner(
        arm, remote_worker_ids=[1], local_env_runner=False
    )
    start = time.perf_counter()
    raised = False
    try:
        fault, _ = timed_train(algo)
    except ray.exceptions.RayError as error:
        raised = True
        print(f"{name:21s} train() raises {type(error).__name__}; once more:")
        fault, _ = timed_train(algo)
    after, result = timed_train(algo)
    if settings.get("restart_failed_env_runners", True):
        while result["fault_tolerance"]["num_healthy_workers"] < 2:
            _, result = timed_train(algo)
        until_both = f"{time.perf_counter() - start:8.1f} s"
    else:
        until_both = "     never"
    lost = steps.stat().st_size - int(result["num_env_steps_sampled_lifetime"])
    dropped = result["fault_tolerance"]["num_env_runners_dropped_lifetime"]
    healthy = result["fault_tolerance"]["num_healthy_workers"]
    rows[name] = fault, healthy, raised
    print(
        f"{name:21s} {before:6.1f} {fault:6.1f} {after:6.1f} {lost:9d} {dropped:9d}"
        f"   {until_both}"
    )
    algo.stop()

ray.shutdown()
folder.cleanup()
defaults = rows["RLlib's defaults"][0]
if defaults < 50:
    sys.exit("With the defaults, train() should wait for about a minute.")
if max(rows["no delay"][0], rows["in place"][0]) > defaults - 20:
    sys.exit("Without the delay, train() should not wait for a minute.")
if rows["no restart"][1] != 1 or rows["no restart, ignore"][1] != 1:
    sys.exit("Without restarts, one env runner should be left.")
if [name for name in rows if rows[name][2]] != ["no restart"]:
    sys.exit("train() should raise without restarts, and in no other row.")
