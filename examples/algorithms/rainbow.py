"""Rainbow, rebuilt on RLlib 2.60: DQN with six parts, of which one can be left out."""

import logging
import os
import sys
import time

import numpy as np
import ray
import torch
from ray.rllib.algorithms.dqn import DQN, DQNConfig
from ray.rllib.algorithms.dqn.torch import default_dqn_torch_rl_module as dqn
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.core.models.base import ENCODER_OUT
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.execution.rollout_ops import synchronous_parallel_sample
from ray.rllib.policy.sample_batch import MultiAgentBatch, SampleBatch
from ray.rllib.utils.metrics import NUM_ENV_STEPS_SAMPLED_LIFETIME, TD_ERROR_KEY

SEED = int(os.environ.get("SEED", 0))
TARGET = 450  # mean return of 20 greedy episodes; 500 is the most CartPole-v1 gives
MAX_ENV_STEPS = 40_000
# double, priorities, dueling, n_step, distribution or noisy: to see what it brings.
WITHOUT = os.environ.get("WITHOUT", "")


class NoisyLinear(torch.nn.Linear):
    """A linear layer whose weights and biases have noise of a learned size.

    Each row of a batch has noise of its own: ε_w = f(ε_out) f(ε_in)ᵀ, ε_b = f(ε_out).
    """

    noise = True

    def __init__(self, inputs, outputs, sigma=0.5):
        super().__init__(inputs, outputs)
        size = sigma / inputs**0.5
        self.sigma_weight = torch.nn.Parameter(torch.full((outputs, inputs), size))
        self.sigma_bias = torch.nn.Parameter(torch.full((outputs,), size))

    @staticmethod
    def draw(rows, width):
        normal = torch.randn(rows, width)
        return normal.sign() * normal.abs().sqrt()  # f in the paper

    def forward(self, x):
        out = super().forward(x)
        if not self.noise:
            return out
        into, out_of = self.draw(*x.shape), self.draw(*out.shape)
        noisy = torch.nn.functional.linear(x * into, self.sigma_weight, self.sigma_bias)
        return out + out_of * noisy


class RainbowModule(dqn.DefaultDQNTorchRLModule):
    """RLlib's Q-network with noisy heads, and a value for each atom of the return."""

    def setup(self):
        super().setup()
        layer = NoisyLinear if self.model_config["noisy"] else torch.nn.Linear
        features = self.catalog.latent_dims[0]
        self.af = layer(features, self.action_space.n * self.num_atoms)
        if self.uses_dueling:
            self.vf = layer(features, self.num_atoms)  # in RLlib 1: cancels out

    def _qf_forward_helper(self, batch, encoder, head):
        features = encoder(batch)[ENCODER_OUT]
        shape = -1, int(self.action_space.n), self.num_atoms
        if self.uses_dueling:
            advantage = head["af"](features).view(shape)
            value = head["vf"](features).unsqueeze(1)
            logits = value + advantage - advantage.mean(dim=1, keepdim=True)
        else:
            logits = head(features).view(shape)
        if self.num_atoms == 1:
            return {dqn.QF_PREDS: logits.squeeze(-1)}
        atoms = torch.linspace(self.v_min, self.v_max, self.num_atoms)
        probs = logits.softmax(dim=-1)
        q = (probs * atoms).sum(dim=-1)
        distribution = {dqn.ATOMS: atoms, dqn.QF_LOGITS: logits, dqn.QF_PROBS: probs}
        return {dqn.QF_PREDS: q, **distribution}

    def _forward_inference(self, batch):
        NoisyLinear.noise = False  # in the greedy policy alone
        output = super()._forward_inference(batch)
        NoisyLinear.noise = True
        return output


def n_step(observations, actions, rewards, n, gamma, terminated, truncated):
    """From each step to the one n later, or to the end. The rest waits for the end."""
    steps = len(rewards)
    starts = np.arange(steps if terminated or truncated else max(0, steps - n + 1))
    ends = np.minimum(starts + n, steps)
    padded = np.concatenate([rewards, np.zeros(n)])
    returns = sum(gamma**k * padded[starts + k] for k in range(n))
    return {
        Columns.OBS: observations[starts],
        Columns.ACTIONS: actions[starts],
        Columns.REWARDS: returns.astype(np.float32),
        Columns.NEXT_OBS: observations[ends],
        Columns.TERMINATEDS: terminated & (ends == steps),
        "n_step": (ends - starts).astype(np.float32),
    }


class PrioritizedReplay:
    """n-step transitions, one array for each column, drawn by priority."""

    def __init__(self, config):
        settings = config.replay_buffer_config
        self.capacity, self.alpha = settings["capacity"], settings["alpha"]
        self.beta, self.n, self.gamma = settings["beta"], config.n_step, config.gamma
        self.columns, self.priorities, self.added = {}, np.zeros(self.capacity), 0
        self.rng = np.random.default_rng(config.seed)
        self.tails = {}  # by episode: steps that are less than n from the last one

    def add(self, piece):
        """Add the transitions that a piece of an episode completes."""
        tail = self.tails.pop(piece.id_, ([], [], []))
        observations = np.array([*tail[0], *piece.get_observations()], np.float32)
        actions = np.array([*tail[1], *piece.get_actions()])
        rewards = np.array([*tail[2], *piece.get_rewards()])
        ends = piece.is_terminated, piece.is_truncated
        rows = n_step(observations, actions, rewards, self.n, self.gamma, *ends)
        if not piece.is_done:
            rest = slice(len(rows["n_step"]), len(rewards))
            self.tails[piece.id_] = observations[rest], actions[rest], rewards[rest]
        index = (self.added + np.arange(len(rows["n_step"]))) % self.capacity
        for name, values in rows.items():
            empty = np.zeros((self.capacity, *values.shape[1:]), values.dtype)
            self.columns.setdefault(name, empty)[index] = values
        self.priorities[index] = self.priorities.max() or 1.0  # all are drawn soon
        self.added += len(index)

    def sample(self, count):
        """Draw `count` transitions, with weights that make up for the priorities."""
        size = min(self.added, self.capacity)
        chances = self.priorities[:size] / self.priorities[:size].sum()
        index = self.rng.choice(size, size=count, p=chances)
        rows = {name: column[index] for name, column in self.columns.items()}
        weights = (size * chances[index]) ** -self.beta
        rows["weights"] = (weights / weights.max()).astype(np.float32)
        return index, rows

    def update(self, index, losses):
        self.priorities[index] = (losses + 1e-6) ** self.alpha


class Rainbow(DQN):
    """One training step: a few env steps, then updates from the replay."""

    def setup(self, config):
        super().setup(config)
        self.replay = PrioritizedReplay(self.config)  # RLlib's own stays empty

    def training_step(self):
        config = self.config
        new_stack = {"_uses_new_env_runners": True, "_return_metrics": True}
        pieces, metrics = synchronous_parallel_sample(
            worker_set=self.env_runner_group, concat=True, **new_stack
        )
        self.metrics.aggregate(metrics, key="env_runners")
        for piece in pieces:
            self.replay.add(piece)
        steps = self.metrics.peek(("env_runners", NUM_ENV_STEPS_SAMPLED_LIFETIME))
        if steps < config.num_steps_sampled_before_learning_starts:
            return

        # Four batches in each draw: their priorities change after the last of them.
        batch_size = config.train_batch_size_per_learner
        replayed = sum(len(piece) for piece in pieces) * config.training_intensity
        for _ in range(round(replayed / (4 * batch_size))):
            index, rows = self.replay.sample(4 * batch_size)
            batch = {DEFAULT_MODULE_ID: SampleBatch(rows)}
            [result] = self.learner_group.update(
                batch=MultiAgentBatch(batch, len(index)),
                minibatch_size=batch_size,
                timesteps={NUM_ENV_STEPS_SAMPLED_LIFETIME: steps},
            )
            losses = result[DEFAULT_MODULE_ID].pop(TD_ERROR_KEY).peek()
            self.replay.update(index, np.concatenate(losses))
            self.metrics.aggregate([result], key="learners")
        self.env_runner_group.sync_weights(
            from_worker_or_learner_group=self.learner_group, inference_only=True
        )


torch.set_num_threads(1)  # so small a network is slower with more threads
logging.getLogger("ray.rllib").setLevel(logging.ERROR)  # no banner about API stacks
ray.init("local", include_dashboard=False, log_to_driver=False, logging_level="error")

config = (
    DQNConfig(algo_class=Rainbow)
    .environment("CartPole-v1")
    # 8 envs side by side, 8 env steps in each: one round of sampling is 64 env steps.
    .env_runners(
        num_env_runners=0, num_envs_per_env_runner=8, rollout_fragment_length=8
    )
    .training(
        double_q=WITHOUT != "double",  # default True
        dueling=WITHOUT != "dueling",  # default True
        n_step=3 if WITHOUT != "n_step" else 1,  # default 1
        num_atoms=51 if WITHOUT != "distribution" else 1,  # default 1
        v_min=0.0,  # default -10: no return is below 0 here
        v_max=100.0,  # default 10: with gamma 0.99 no return is above 100
        # With noisy layers there is no other chance. Default: 1.0 to 0.05.
        epsilon=0.0 if WITHOUT != "noisy" else [(0, 1.0), (3_000, 0.04)],
        replay_buffer_config={
            "capacity": 50_000,
            "alpha": 0.5 if WITHOUT != "priorities" else 0.0,  # default 0.6
            "beta": 0.4,
        },
        # 32 replayed steps for each env step: with batches of 64, one update for
        # every second env step. Default: one update a round, however long it was.
        training_intensity=32,
        train_batch_size_per_learner=64,  # default 32: the same time, a better gradient
        num_steps_sampled_before_learning_starts=500,  # default 1000
        lr=4e-3,  # default 5e-4: noisy layers took longer with 1e-3
        target_network_update_freq=10,  # default 500: copy the network after each round
    )
    .rl_module(
        rl_module_spec=RLModuleSpec(module_class=RainbowModule),
        model_config={
            "fcnet_hiddens": [256, 256],  # the default
            "fcnet_activation": "relu",  # default "tanh"
            "noisy": WITHOUT != "noisy",  # read by RainbowModule alone
        },
    )
    # One train() goes on for 1000 env steps, however long they take.
    .reporting(min_sample_timesteps_per_iteration=1000)
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
start, env_steps, iteration, greedy_return = time.perf_counter(), 0, 0, 0.0
while greedy_return < TARGET and env_steps < MAX_ENV_STEPS:
    iteration += 1
    env_steps = int(algo.train()["num_env_steps_sampled_lifetime"])
    # In training, noise acts. What counts is the greedy policy, without it.
    greedy_return = algo.evaluate()["env_runners"]["episode_return_mean"]
    seconds = time.perf_counter() - start
    print(
        f"iteration {iteration:3d}   env steps {env_steps:7,d}   "
        f"mean return {greedy_return:6.1f}   seconds {seconds:5.1f}"
    )

algo.stop()
ray.shutdown()
print(f"greedy return {greedy_return:.1f} over 20 episodes, target {TARGET}")
if greedy_return < TARGET:
    sys.exit(f"Rainbow missed its target of {TARGET} in {MAX_ENV_STEPS:,} env steps.")
