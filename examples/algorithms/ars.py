"""ARS (augmented random search), rebuilt on RLlib 2.60: the best of many directions."""

import copy
import logging
import os
import sys
import time

import numpy as np
import ray
import torch
from ray.rllib.algorithms import Algorithm, AlgorithmConfig
from ray.rllib.core.learner.torch.torch_learner import TorchLearner
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.core.rl_module.torch.torch_rl_module import TorchRLModule
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner
from torch import nn

SEED = int(os.environ.get("SEED", 0))
ENV = os.environ.get("ENV", "CartPole-v1")
TARGET = {"CartPole-v1": 450, "Acrobot-v1": -100}[ENV]  # of 20 greedy episodes
MAX_ENV_STEPS = 2_000_000
WORKERS = int(os.environ.get("WORKERS", 0))  # 0: all in this process
POLICY = "default_policy"  # RLlib's name for the only RLModule


class ARSConfig(AlgorithmConfig):
    """The settings of ARS: those of every algorithm, the noise, the top directions."""

    def __init__(self, algo_class=None):
        super().__init__(algo_class or ARS)
        self.env_runner_cls = ARSEnvRunner
        self.lr = 0.05
        self.noise_stdev = 0.1
        self.top_directions = 16

    def training(self, *, noise_stdev=None, top_directions=None, **kwargs):
        super().training(**kwargs)
        self.noise_stdev = noise_stdev or self.noise_stdev
        self.top_directions = top_directions or self.top_directions
        return self

    def get_default_rl_module_spec(self):
        return RLModuleSpec(module_class=LinearPolicy)

    def get_default_learner_class(self):
        return WeightsOnly


class LinearPolicy(TorchRLModule):
    """The logit of each discrete action is linear in the filtered observation."""

    def setup(self):
        [features] = self.observation_space.shape
        # A row for each action, its bias last.
        self.theta = nn.Parameter(torch.zeros(int(self.action_space.n), features + 1))
        # The filter: no parameters, but part of the state, and so of checkpoints.
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("deviation", torch.ones(features))

    def _forward(self, batch, **kwargs):
        return {"action_dist_inputs": self.logits(self.theta, batch["obs"])}

    def logits(self, theta, obs):
        """For `obs` (n, features), with one θ for all or `theta` (n, *shape of θ)."""
        filtered = (obs - self.mean) / self.deviation
        return (theta[..., :-1] @ filtered[..., None])[..., 0] + theta[..., -1]


class WeightsOnly(TorchLearner):
    """Keeps the RLModule for evaluation and checkpoints. ARS computes no loss."""

    def compute_loss_for_module(self, **kwargs):
        raise NotImplementedError("ARS does not learn from a loss.")


def sums(observations):
    """(count, sum of each feature, sum of its square): sums of parts can be added."""
    count = torch.tensor([float(len(observations))])
    return torch.cat([count, observations.sum(0), observations.square().sum(0)])


def mean_and_deviation(totals):
    """Mean and standard deviation of each feature, from `sums` of all observations."""
    mean, mean_square = totals[1:].view(2, -1) / totals[0]
    return mean, (mean_square - mean.square()).clamp(min=1e-8).sqrt()


class Search:
    """The weights θ, how they move, what the filter knows: equal in every process."""

    def __init__(self, config, shape, generation=0):
        self.config, self.generation = config, generation
        self.theta = torch.zeros(shape)
        self.totals = torch.zeros(2 * shape[1] - 1, dtype=torch.float64)
        rng = torch.Generator().manual_seed(0)  # the same table of noise everywhere
        self.noise = torch.randn(2_000_000, generator=rng)

    def directions(self, indices):
        """The directions δ that stand in the table from each index on: (n, *θ)."""
        size, shape = self.theta.numel(), self.theta.shape
        return torch.stack([self.noise[i : i + size].view(shape) for i in indices])

    def update(self, indices, returns, seen):
        """A step along the best directions, in units of their returns' deviation.

        `returns` is (n, 2): of θ + νδ and θ - νδ. `seen` sums up the observations made.
        """
        best = returns.amax(dim=1).argsort(descending=True, stable=True)
        best = best[: self.config.top_directions]
        difference = returns[best, 0] - returns[best, 1]
        step = torch.tensordot(difference, self.directions(indices[best.numpy()]), 1)
        scale = len(best) * (returns[best].std(correction=0) + 1e-8)
        self.theta += self.config.lr * step / scale
        self.totals += seen
        self.generation += 1

    def write_to(self, module):
        """Give weights and filter to an RLModule."""
        module.theta.data.copy_(self.theta)
        if self.totals[0] > 0:
            module.mean[:], module.deviation[:] = mean_and_deviation(self.totals)

    def get_state(self):
        return self.theta, self.totals, self.generation

    def set_state(self, state):
        self.theta, self.totals, self.generation = copy.deepcopy(state)


class ARSEnvRunner(SingleAgentEnvRunner):
    """Plays perturbed policies, one in each of its envs, and tells their returns."""

    def make_module(self):
        super().make_module()
        self.search = Search(self.config, self.module.theta.shape, generation=-1)
        self.rng = np.random.default_rng([self.config.seed or 0, self.worker_index])

    def play_pairs(self, generation, last, state):
        """Catch up with the last generation, then play this one's share.

        Returns (places in the table of noise, returns (n, 2), sums of observations), or
        None if this worker is too far back and has to be sent the state.
        """
        if state is not None:
            self.search.set_state(state)
        elif last is not None and self.search.generation == generation - 1:
            self.search.update(*last)
        if self.search.generation != generation:
            return None
        self.search.write_to(self.module)  # the filter; each env has its own weights
        last_place = len(self.search.noise) - self.search.theta.numel()
        indices = self.rng.integers(last_place, size=self.num_envs // 2)
        noise = self.config.noise_stdev * self.search.directions(indices)
        both = torch.cat([self.search.theta + noise, self.search.theta - noise])
        returns, seen = self.play(both)
        return indices, returns.view(2, -1).T, seen

    def play(self, population):
        """One episode for each row of `population`, side by side, greedily."""
        obs, _ = self.env.reset(seed=int(self.rng.integers(2**31)))
        alive, returns, seen = torch.ones(len(obs), dtype=bool), 0, 0
        with torch.no_grad():
            while alive.any():
                obs = torch.as_tensor(obs, dtype=torch.float32)
                seen = seen + sums(obs[alive].double())
                actions = self.module.logits(population, obs).argmax(dim=-1)
                obs, rewards, terminated, truncated, _ = self.env.step(actions.numpy())
                returns = returns + alive * torch.as_tensor(rewards).float()
                alive &= ~torch.as_tensor(terminated | truncated)
        return returns, seen


class ARS(Algorithm):
    """One training step: every worker plays its pairs, all make the same update."""

    @classmethod
    def get_default_config(cls):
        return ARSConfig()

    def setup(self, config):
        super().setup(config)
        theta = self.learner_group.get_weights()[POLICY]["theta"]
        self.search, self.last = Search(self.config, theta.shape), None

    def training_step(self):
        played = self.on_workers(None)
        if any(share is None for share in played):  # new workers, or after a restore
            played = self.on_workers(self.search.get_state())
        indices, returns, seen = zip(*played, strict=True)
        self.last = np.concatenate(indices), torch.cat(returns), sum(seen)
        self.search.update(*self.last)

        # For algo.get_module(), and for evaluation and checkpoints: the Learner's.
        write = self.search.write_to
        write(self.env_runner.module)
        self.learner_group.foreach_learner(lambda it: write(it.module[POLICY]))
        mean = self.last[1].mean().item()
        self.metrics.log_value(("env_runners", "episode_return_mean"), mean, window=1)
        key = ("env_runners", "num_env_steps_sampled_lifetime")
        self.metrics.log_value(key, int(self.last[2][0]), reduce="lifetime_sum")

    def on_workers(self, state):
        """Every worker plays its share. `last` is all that others must tell it."""
        generation, last = self.search.generation, self.last
        return self.env_runner_group.foreach_env_runner(
            lambda worker: worker.play_pairs(generation, last, state),
            local_env_runner=self.env_runner_group.num_remote_workers() == 0,
        )

    def get_state(self, *args, **kwargs):
        state = super().get_state(*args, **kwargs)
        return state | {"search": self.search.get_state()}

    def set_state(self, state):
        super().set_state(state)
        self.search.set_state(state["search"])


torch.set_num_threads(1)  # so small a network is slower with more threads
logging.getLogger("ray.rllib").setLevel(logging.ERROR)  # no banner about API stacks
ray.init("local", include_dashboard=False, log_to_driver=False, logging_level="error")

config = (
    ARSConfig()
    .environment(ENV)
    # 32 pairs in each generation, shared out among the workers.
    .env_runners(num_env_runners=WORKERS, num_envs_per_env_runner=64 // max(1, WORKERS))
    .training(lr=0.05, noise_stdev=0.1, top_directions=16)
    # 20 greedy episodes, side by side, when algo.evaluate() is called. Only with an
    # interval does evaluation get an env runner of its own, which can act greedily.
    .evaluation(
        evaluation_interval=1_000_000,
        evaluation_duration=20,
        evaluation_config={"explore": False, "num_envs_per_env_runner": 20},
    )
    .debugging(seed=SEED)
)

algo = config.build_algo()
start, env_steps, iteration, greedy_return = time.perf_counter(), 0, 0, -9999.0
while greedy_return < TARGET and env_steps < MAX_ENV_STEPS:
    iteration += 1
    result = algo.train()["env_runners"]
    env_steps = int(result["num_env_steps_sampled_lifetime"])
    mean_return = result["episode_return_mean"]
    seconds = time.perf_counter() - start
    print(
        f"iteration {iteration:3d}   env steps {env_steps:7,d}   "
        f"mean return {mean_return:6.1f}   seconds {seconds:5.1f}"
    )
    # θ itself is better than its noisy neighbours: measure it in time.
    if mean_return >= TARGET - 0.2 * abs(TARGET):
        greedy_return = algo.evaluate()["env_runners"]["episode_return_mean"]

algo.stop()
ray.shutdown()
print(f"greedy return {greedy_return:.1f} over 20 episodes, target {TARGET}")
if greedy_return < TARGET:
    sys.exit(f"ARS missed its target of {TARGET} within {MAX_ENV_STEPS:,} env steps.")
