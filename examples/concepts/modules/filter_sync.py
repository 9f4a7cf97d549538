"""Two faults of RLlib 2.60's MeanStdFilter, seen in its numbers, and mended."""

import logging
import sys

import gymnasium as gym
import numpy as np
import ray
import torch
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.connectors.env_to_module import MeanStdFilter
from ray.rllib.utils.filter import RunningStat


class Noise(gym.Env):
    """Observations with a mean of 100 and a deviation of 5, whatever the agent does."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (1,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def __init__(self, config=None):
        self.steps = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return self._observation(), {}

    def step(self, action):
        self.steps += 1
        return self._observation(), 0.0, False, self.steps == 20, {}

    def _observation(self):
        return self.np_random.normal(100, 5, 1).astype(np.float32)


class MendedFilter(MeanStdFilter):
    """Tells the statistics of the new observations apart from those known before."""

    def merge_states(self, states):
        self.get_state()  # makes the filters if there are none yet
        for state in states:
            for agent, agent_state in state.items():
                known = self._filters[agent].running_stats
                stats = RunningStat.from_state(agent_state["running_stats"][0])
                new = stats.num_pushes_delta
                if new:
                    old = stats.n - new
                    mean = (stats.n * stats.mean - old * known.mean) / new
                    between = (mean - known.mean) ** 2 * old * new / stats.n
                    squares = stats.sum_sq_diff_array - known.sum_sq_diff_array
                    stats.mean_delta_array = mean
                    stats.sum_sq_diff_delta_array = squares - between
                agent_state["running_stats"] = [stats.to_state()]
        return super().merge_states(states)


def hand_over(*, algorithm, **kwargs):
    """Before evaluating, give all evaluation env runners the filter that trained."""
    state = algorithm.env_runner.get_state(components="env_to_module_connector")
    group = algorithm.eval_env_runner_group
    group.foreach_env_runner(lambda runner: runner.set_state(state))


def filter_of(runner):
    """How many observations a runner's filter knows of, their mean and deviation."""
    state = runner.get_state(components="env_to_module_connector")
    (piece,) = state["env_to_module_connector"].values()
    (stats,) = piece[None]["running_stats"]
    stats = RunningStat.from_state(stats)
    return stats.n, stats.mean[0], stats.std[0]


def train(piece, num_env_runners, callbacks):
    """Train for 4 iterations; what the filters for training and evaluation know."""
    config = PPOConfig().environment(Noise).debugging(seed=0)
    config.env_runners(
        num_env_runners=num_env_runners,
        env_to_module_connector=lambda env, spaces, device: piece(),
    )
    config.training(train_batch_size_per_learner=400, num_epochs=1)
    config.evaluation(evaluation_interval=4, evaluation_duration=1)
    config.callbacks(**callbacks)
    config.fault_tolerance(restart_failed_env_runners=False)
    algo = config.build_algo()
    print(f"{piece.__name__}, remote env runners: {num_env_runners}")
    for iteration in range(1, 5):
        algo.train()
        found = filter_of(algo.env_runner)
        show(f"training, iteration {iteration}", found)
    evaluating = filter_of(algo.eval_env_runner)
    show("evaluating", evaluating)
    algo.stop()
    return abs(found[1] - 100) < 1, evaluating[0] > 1000


def show(who, found):
    n, mean, deviation = found
    print(f"  {who:23s}n {n:5d}   mean {mean:6.1f}   deviation {deviation:5.1f}")


torch.set_num_threads(1)  # so small a network is slower with more threads
for name in ("ray", "ray.rllib"):
    logging.getLogger(name).setLevel(logging.ERROR)  # no banner about API stacks
gym.logger.min_level = gym.logger.ERROR  # no word about a second algorithm's envs
ray.init("local", include_dashboard=False, log_to_driver=False, logging_level="error")
found = [
    train(MeanStdFilter, 0, {}),
    train(MeanStdFilter, 1, {}),
    train(MendedFilter, 1, {"on_evaluate_start": hand_over}),
]
ray.shutdown()
if found != [(True, False), (False, False), (True, True)]:
    sys.exit(f"RLlib's filter does something else than this page says: {found}.")
