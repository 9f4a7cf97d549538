"""ES (evolution strategies), rebuilt on RLlib 2.60: only seeds and returns travel."""

import copy
import logging
import os
import sys
import time

import numpy as np
import ray
import torch
from ray.rllib.algorithms import Algorithm, AlgorithmConfig
from ray.rllib.algorithms.bc.torch.default_bc_torch_rl_module import (
    DefaultBCTorchRLModule,
)
from ray.rllib.core.learner.torch.torch_learner import TorchLearner
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner
from ray.rllib.utils.metrics import (
    ENV_RUNNER_RESULTS,
    EPISODE_RETURN_MEAN,
    NUM_ENV_STEPS_SAMPLED_LIFETIME,
)
from torch.func import functional_call, vmap
from torch.nn.utils import parameters_to_vector, vector_to_parameters

SEED = int(os.environ.get("SEED", 0))
ENV = os.environ.get("ENV", "CartPole-v1")
TARGET = {"CartPole-v1": 450, "Acrobot-v1": -100}[ENV]  # of 20 greedy episodes
MAX_ENV_STEPS = 2_000_000
WORKERS = int(os.environ.get("WORKERS", 0))  # 0: all in this process
POLICY = "default_policy"  # RLlib's name for the only RLModule


class ESConfig(AlgorithmConfig):
    """The settings of ES: those of every algorithm, and the size of the noise."""

    def __init__(self, algo_class=None):
        super().__init__(algo_class or ES)
        self.env_runner_cls = ESEnvRunner
        self.lr = 0.05
        self.noise_stdev = 0.1
        self.weight_decay = 0.005

    def training(self, *, noise_stdev=None, weight_decay=None, **kwargs):
        super().training(**kwargs)
        if noise_stdev is not None:
            self.noise_stdev = noise_stdev
        if weight_decay is not None:
            self.weight_decay = weight_decay
        return self

    def get_default_rl_module_spec(self):
        # RLlib's BC has a policy and no value function, which is what ES needs.
        return RLModuleSpec(module_class=DefaultBCTorchRLModule)

    def get_default_learner_class(self):
        return WeightsOnly


class WeightsOnly(TorchLearner):
    """Keeps the RLModule for evaluation and checkpoints. ES computes no loss."""

    def compute_loss_for_module(self, **kwargs):
        raise NotImplementedError("ES does not learn from a loss.")


def centered_ranks(returns):
    """Replace each return by its rank, scaled to [-0.5, 0.5]: outliers lose weight."""
    ranks = returns.flatten().argsort(stable=True).argsort().to(torch.float32)
    return (ranks / (returns.numel() - 1) - 0.5).view_as(returns)


class Search:
    """The weights θ and how they move. Driver and workers each hold an equal one."""

    def __init__(self, theta, config, generation=0):
        self.theta, self.config, self.generation = theta, config, generation
        self.adam = torch.optim.Adam(
            [theta], config.lr, weight_decay=config.weight_decay
        )
        rng = torch.Generator().manual_seed(0)  # the same table of noise everywhere
        self.noise = torch.randn(2_000_000, generator=rng)

    def directions(self, indices):
        """The directions ε that stand in the table from each index on: (n, size)."""
        return torch.stack([self.noise[i : i + len(self.theta)] for i in indices])

    def update(self, indices, returns):
        """An Adam step up the estimated gradient of the mean return.

        `returns` is (n, 2): of θ + σε and θ - σε for each of the n directions ε.
        """
        ranks = centered_ranks(returns)
        gradient = (ranks[:, 0] - ranks[:, 1]) @ self.directions(indices)
        gradient /= 2 * len(indices) * self.config.noise_stdev
        self.theta.grad = -gradient  # Adam goes down
        self.adam.step()
        self.generation += 1

    def get_state(self):
        return self.theta.clone(), self.adam.state_dict(), self.generation

    def set_state(self, state):
        theta, adam, self.generation = copy.deepcopy(state)
        self.theta.copy_(theta)
        self.adam.load_state_dict(adam)


class ESEnvRunner(SingleAgentEnvRunner):
    """Plays perturbed policies, one in each of its envs, and tells their returns."""

    def make_module(self):
        super().make_module()
        theta = parameters_to_vector(self.module.parameters()).detach()
        self.search = Search(theta, self.config, generation=-1)  # not the driver's yet
        self.rng = np.random.default_rng([self.config.seed or 0, self.worker_index])

    def play_pairs(self, generation, last, state):
        """Catch up with the last generation, then play this one's share.

        Returns (places in the table of noise, returns (n, 2), env steps), or None if
        this worker is too far back and has to be sent the state.
        """
        if state is not None:
            self.search.set_state(state)
        elif last is not None and self.search.generation == generation - 1:
            self.search.update(*last)
        if self.search.generation != generation:
            return None
        size = len(self.search.noise) - len(self.search.theta)
        indices = self.rng.integers(size, size=self.num_envs // 2)
        noise = self.config.noise_stdev * self.search.directions(indices)
        theta = self.search.theta
        returns, env_steps = self.play(torch.cat([theta + noise, theta - noise]))
        return indices, returns.view(2, -1).T, env_steps

    def play(self, population):
        """One episode for each row of `population`, side by side, greedily."""
        shapes = {name: p.shape for name, p in self.module.named_parameters()}
        sizes = [shape.numel() for shape in shapes.values()]
        weights = {
            name: part.view(-1, *shape)
            for (name, shape), part in zip(
                shapes.items(), population.split(sizes, 1), strict=True
            )
        }
        forward = vmap(
            lambda w, obs: functional_call(self.module, w, ({"obs": obs[None]},))
        )
        dist_cls = self.module.get_inference_action_dist_cls()
        obs, _ = self.env.reset(seed=int(self.rng.integers(2**31)))
        alive, returns, env_steps = torch.ones(len(obs), dtype=bool), 0, 0
        with torch.no_grad():
            while alive.any():
                out = forward(weights, torch.as_tensor(obs, dtype=torch.float32))
                logits = out["action_dist_inputs"][:, 0]
                actions = dist_cls.from_logits(logits).to_deterministic().sample()
                obs, rewards, terminated, truncated, _ = self.env.step(actions.numpy())
                returns = returns + alive * torch.as_tensor(rewards)
                env_steps += int(alive.sum())
                alive &= ~torch.as_tensor(terminated | truncated)
        return returns, env_steps


class ES(Algorithm):
    """One training step: every worker plays its pairs, all make the same update."""

    @classmethod
    def get_default_config(cls):
        return ESConfig()

    def setup(self, config):
        super().setup(config)
        [theta] = self.learner_group.foreach_learner(
            lambda learner: parameters_to_vector(learner.module[POLICY].parameters())
        )
        self.search, self.last = Search(theta.get().detach(), self.config), None

    def training_step(self):
        played = self.on_workers(None)
        if any(share is None for share in played):  # new workers, or after a restore
            played = self.on_workers(self.search.get_state())
        indices, returns, env_steps = zip(*played, strict=True)
        self.last = np.concatenate(indices), torch.cat(returns)
        self.search.update(*self.last)

        # For algo.get_module(), and for evaluation and checkpoints: the Learner's.
        theta = self.search.theta.clone()
        vector_to_parameters(theta, self.env_runner.module.parameters())
        self.learner_group.foreach_learner(
            lambda it: vector_to_parameters(theta, it.module[POLICY].parameters())
        )
        mean_return = self.last[1].mean().item()
        steps_key = (ENV_RUNNER_RESULTS, NUM_ENV_STEPS_SAMPLED_LIFETIME)
        self.metrics.log_value(steps_key, sum(env_steps), reduce="lifetime_sum")
        self.metrics.log_value(
            (ENV_RUNNER_RESULTS, EPISODE_RETURN_MEAN), mean_return, window=1
        )

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
    ESConfig()
    .environment(ENV)
    # 32 pairs in each generation, shared out among the workers.
    .env_runners(num_env_runners=WORKERS, num_envs_per_env_runner=64 // max(1, WORKERS))
    .training(lr=0.05, noise_stdev=0.1, weight_decay=0.005)
    .rl_module(model_config={"fcnet_hiddens": [32], "fcnet_activation": "tanh"})
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
    sys.exit(f"ES missed its target of {TARGET} within {MAX_ENV_STEPS:,} env steps.")
