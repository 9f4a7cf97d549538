"""An env runner that is slow or hangs, and a callback that ends those that hang."""

import logging
import os
import sys
import threading
import time

os.environ["RAY_DEDUP_LOGS_SKIP_REGEX"] = "."  # Ray's own words about dead processes

import ray
import torch
from gymnasium.envs.classic_control import CartPoleEnv
from ray.rllib.algorithms.ppo import PPOConfig

SEED = int(os.environ.get("SEED", 0))
TIMEOUT = 3.0  # seconds that RLlib waits for samples; its default is 60

torch.set_num_threads(1)  # so small a network is slower with more threads
logging.getLogger("ray.rllib").setLevel(logging.ERROR)  # no banner about API stacks
logging.getLogger("ray.rllib.utils.actor_manager").setLevel(logging.CRITICAL)
ray.init(
    "local",
    num_cpus=3,
    include_dashboard=False,
    log_to_driver=False,
    logging_level="error",
)


class StuckCartPole(CartPoleEnv):
    """Takes as long for a step as it is told to."""

    seconds_per_step = 0.0

    def __init__(self, env_config):
        super().__init__()

    def step(self, action):
        time.sleep(self.seconds_per_step)
        return super().step(action)


def let_step_take(seconds):
    """Change the environment of the first env runner."""

    def change(env_runner):
        env_runner.env.unwrapped.envs[0].unwrapped.seconds_per_step = seconds

    algo.env_runner_group.foreach_env_runner(
        change, remote_worker_ids=[1], local_env_runner=False
    )


def end_hung_env_runners(group):
    """End the processes of env runners that do not answer; Ray then starts new ones."""
    actors = group._worker_manager.actors()  # no public method gives them
    answers = {actors[i].ping.remote(): i for i in group.healthy_env_runner_ids()}
    _, silent = ray.wait(list(answers), num_returns=len(answers), timeout=TIMEOUT)
    for answer in silent:
        ray.kill(actors[answers[answer]], no_restart=False)


dropped_before = 0


def look_after_env_runners(*, algorithm, result, **kwargs):
    """Callback: look for hung ones when a round went on without some env runner."""
    global dropped_before
    dropped = result["fault_tolerance"]["num_env_runners_dropped_lifetime"]
    if dropped > dropped_before:
        end_hung_env_runners(algorithm.env_runner_group)
    dropped_before = dropped


def train(times):
    """Train, and print what each call took and gave."""
    for _ in range(times):
        start = time.perf_counter()
        result = algo.train()
        seconds = time.perf_counter() - start
        faults = result["fault_tolerance"]
        print(
            f"   train() {seconds:5.1f} s"
            f"   env steps {int(result['num_env_steps_sampled_lifetime']):5,d}"
            f"   healthy {faults['num_healthy_workers']} of 2"
            f"   dropped {faults['num_env_runners_dropped_lifetime']:2d}"
        )
    return seconds, faults


config = (
    PPOConfig()
    .environment(StuckCartPole)
    .env_runners(num_env_runners=2, sample_timeout_s=TIMEOUT)
    .training(train_batch_size_per_learner=400, minibatch_size=200, num_epochs=2)
    .fault_tolerance(delay_between_env_runner_restarts_s=0)
    .debugging(seed=SEED, log_level="ERROR")
)
algo = config.build_algo()
algo.train()  # the first one is slower
print("both work")
train(times=1)

print("one env runner needs 5 seconds for its fragment")
let_step_take(5 / 200)
_, faults = train(times=1)
if faults["num_env_runners_dropped_lifetime"] == 0:
    sys.exit("RLlib should go on without the env runner that is too slow.")
let_step_take(0)

print("one env runner hangs")
let_step_take(3600)
seconds, faults = train(times=2)
if faults["num_healthy_workers"] != 2 or seconds < TIMEOUT:
    sys.exit("RLlib should call it healthy, and wait for it each time.")
stopping = threading.Thread(target=algo.stop, daemon=True)
stopping.start()
stopping.join(timeout=10)
if not stopping.is_alive():
    sys.exit("algo.stop() should wait for the env runner that hangs.")
print("   algo.stop() has not returned after 10 s")
end_hung_env_runners(algo.env_runner_group)
stopping.join(timeout=60)
if stopping.is_alive():
    sys.exit("algo.stop() should return when the env runner has ended.")
print("   the env runner is ended, and algo.stop() has returned")

print("one env runner hangs, and the callback ends it")
config = config.copy(copy_frozen=False)
algo = config.callbacks(on_train_result=look_after_env_runners).build_algo()
algo.train()
let_step_take(3600)
train(times=2)
deadline = time.monotonic() + 120
while algo.env_runner_group.num_healthy_remote_env_runners() < 2:
    algo.train()  # with one env runner, until the new process is there
    if time.monotonic() > deadline:
        sys.exit("The env runner that was ended should be back.")
train(times=1)
algo.stop()
ray.shutdown()
