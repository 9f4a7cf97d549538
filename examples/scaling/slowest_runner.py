"""PPO waits for its slowest env runner: what that costs, and what helps."""

import logging
import os
import sys
import time

import gymnasium as gym
import numpy as np
import ray
import torch
from ray.rllib.algorithms.appo import APPOConfig
from ray.rllib.algorithms.ppo import PPOConfig

os.environ.update({"RAY_worker_niceness": "0"})  # else other programs come first
SEED = int(os.environ.get("SEED", 0))
WAIT, SLOW = 0.005, 0.025  # seconds that a step waits; in a slow env runner
SHORT, LONG = 16, 128  # env steps of an episode; in an env runner with long ones
RUNNERS, BATCH = 4, 256
STEPS = ("env_runners", "num_env_steps_sampled_lifetime")


class Simulator(gym.Env):
    """Waits in each step. In one env runner it is slow, or has long episodes."""

    observation_space = gym.spaces.Box(-1, 1, (8,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def __init__(self, config):
        odd = config["odd"] if config.worker_index == 1 else None
        self.wait = SLOW if odd == "slow" else WAIT
        self.length = LONG if odd == "long" else SHORT

    def reset(self, *, seed=None, options=None):
        self.steps = 0
        return np.zeros(8, np.float32), {}

    def step(self, action):
        time.sleep(self.wait)
        self.steps += 1
        return np.zeros(8, np.float32), 1.0, self.steps == self.length, False, {}


def change(odd, settings):
    """Make one env runner odd, and change settings of the running algorithm."""
    config = algo.config.copy(copy_frozen=False)
    config.environment(env_config={"odd": odd}).env_runners(**settings)

    def take(runner):
        runner.config = config
        runner.make_env()

    algo.config = config
    algo.env_runner_group.foreach_env_runner(take, local_env_runner=False)


def measure(what, odd=None, compared_with=None, iterations=4, **settings):
    """Env steps a second in the best of some iterations, and a line about it."""
    change(odd, settings)
    algo.train()  # warms up
    rates = []
    for _ in range(iterations):
        before, start = algo.metrics.peek(STEPS), time.perf_counter()
        algo.train()
        seconds = time.perf_counter() - start
        rates.append((algo.metrics.peek(STEPS) - before) / seconds)
    rate = max(rates)  # in the others, other programs may have had the cores
    share = f"{rate / compared_with:6.0%}" if compared_with else "  100%"
    print(f"{type(algo).__name__:5s} {what:48s} {rate:6.0f}  {share}", flush=True)
    return rate


def sample(runner):
    """The seconds that an env runner needs for one sample, and its index."""
    start = time.perf_counter()
    runner.sample()
    return time.perf_counter() - start, runner.worker_index


torch.set_num_threads(1)  # so small a network is slower with more threads
logging.getLogger("ray.rllib").setLevel(logging.ERROR)  # no banner about API stacks
ray.init(
    "local",
    num_cpus=8,  # more than there may be: env runners that wait need no core each
    include_dashboard=False,
    log_to_driver=False,
    logging_level="error",
)
print(f"{RUNNERS} env runners that wait 5 ms in each step     env steps/s  share")
common = {"num_env_runners": RUNNERS, "num_envs_per_env_runner": 1}
algo = (
    PPOConfig()
    .environment(Simulator, env_config={"odd": None})
    .env_runners(**common)
    .training(train_batch_size_per_learner=BATCH, num_epochs=2)
    .debugging(seed=SEED, log_level="ERROR")
    .build_algo()
)
ppo = measure("all alike")
slow = measure("one waits 25 ms", "slow", ppo)
samples = algo.env_runner_group.foreach_env_runner(sample, local_env_runner=False)
(longest, slowest), (next_longest, _), *_ = sorted(samples, reverse=True)
print(f"      (seconds of a sample: {longest:.1f} in env runner {slowest},", end=" ")
print(f"{next_longest:.1f} in the next)")
pieces = measure(
    "the same, rollout_fragment_length=8",
    "slow",
    ppo,
    rollout_fragment_length=8,
)
complete = measure(
    "one has episodes 8 times as long, complete_episodes",
    "long",
    ppo,
    batch_mode="complete_episodes",
    rollout_fragment_length="auto",
)
truncated = measure(
    "the same, truncate_episodes (the default)",
    "long",
    ppo,
    batch_mode="truncate_episodes",
)
# A slow env runner waits 64 * 25 ms for its share, so it is always too late.
timeout = measure(
    "one waits 25 ms, sample_timeout_s=1.2",
    "slow",
    ppo,
    sample_timeout_s=1.2,
)
dropped = algo.env_runner_group.num_env_runners_dropped_lifetime()
print(f"      (dropped because they came too late: {dropped} samples)")
algo.stop()

algo = (
    APPOConfig()
    .environment(Simulator, env_config={"odd": None})
    .env_runners(
        **common,
        rollout_fragment_length=16,
        use_env_runner_state_server=False,  # it delays the first samples
    )
    .learners(num_learners=0)
    .training(train_batch_size_per_learner=BATCH, timeout_s_sampler_manager=0.05)
    .reporting(min_time_s_per_iteration=2)
    .debugging(seed=SEED, log_level="ERROR")
    .build_algo()
)
appo = measure("all alike", iterations=3)
appo_slow = measure("one waits 25 ms", "slow", appo, iterations=3)
algo.stop()
ray.shutdown()

if slow > 0.7 * ppo:
    sys.exit("PPO did not wait for its slowest env runner.")
if slowest != 1:
    sys.exit("Another env runner than the slow one took longest.")
if pieces > 0.7 * ppo:
    sys.exit("PPO with short fragments did not wait for its slowest env runner.")
if complete > 0.9 * truncated:
    sys.exit("Complete episodes of unequal length cost nothing.")
if truncated < 0.6 * ppo:
    sys.exit("PPO waited for a long episode although it truncates.")
if not dropped or timeout > 0.7 * ppo:
    sys.exit("sample_timeout_s dropped no samples, or it helped.")
if appo_slow < 0.5 * appo:
    sys.exit("One slow env runner took half of APPO's env steps.")
if appo_slow / appo < 1.2 * slow / ppo:
    sys.exit("APPO lost as much to its slowest env runner as PPO.")
