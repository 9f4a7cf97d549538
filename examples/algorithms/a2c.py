"""A2C, rebuilt on RLlib 2.60: pieces of episodes, a critic, one update a batch."""

import logging
import os
import sys
import time

import ray
import torch
from ray.rllib.algorithms.ppo import PPO, PPOConfig
from ray.rllib.algorithms.ppo.torch.ppo_torch_learner import PPOTorchLearner
from ray.rllib.core.columns import Columns
from ray.rllib.evaluation.postprocessing import Postprocessing

SEED = int(os.environ.get("SEED", 0))
ENV = os.environ.get("ENV", "CartPole-v1")
TARGET = {"CartPole-v1": 450, "Acrobot-v1": -100}[ENV]  # of 20 greedy episodes
MAX_ENV_STEPS = {"CartPole-v1": 200_000, "Acrobot-v1": 400_000}[ENV]


class A2CConfig(PPOConfig):
    """PPO's settings, with what makes it A2C: each batch is used once and whole."""

    def __init__(self, algo_class=None):
        super().__init__(algo_class or A2C)
        self.training(
            num_epochs=1,  # PPO: 30
            minibatch_size=None,  # so one update takes the batch whole; PPO: 128
            use_kl_loss=False,
            entropy_coeff=0.01,  # keeps the policy from becoming certain too early
            vf_loss_coeff=0.5,  # PPO: 1.0
            grad_clip=0.5,  # PPO: None
        )

    def get_default_learner_class(self):
        return A2CLearner


class A2CLearner(PPOTorchLearner):
    """The loss of A2C. RLlib's GAE connector has put advantages in the batch."""

    def compute_loss_for_module(self, *, module_id, config, batch, fwd_out):
        module = self.module[module_id].unwrapped()
        action_dist = module.get_train_action_dist_cls().from_logits(
            fwd_out[Columns.ACTION_DIST_INPUTS]
        )
        # RLlib adds a step to each piece, for V(s) after its end. It does not count.
        mask = batch[Columns.LOSS_MASK]
        log_prob = action_dist.logp(batch[Columns.ACTIONS])
        values = module.compute_values(batch, fwd_out.get(Columns.EMBEDDINGS))
        policy_loss, value_loss = a2c_losses(
            log_prob[mask],
            batch[Postprocessing.ADVANTAGES][mask],
            values[mask],
            batch[Postprocessing.VALUE_TARGETS][mask],
        )
        entropy = action_dist.entropy()[mask].mean()
        self.metrics.log_dict(
            {"policy_loss": policy_loss, "vf_loss": value_loss, "entropy": entropy},
            key=module_id,
            window=1,
        )
        return (
            policy_loss
            + config.vf_loss_coeff * value_loss
            - self.entropy_coeff_schedulers_per_module[module_id].get_current_value()
            * entropy
        )


def a2c_losses(log_prob, advantages, values, value_targets):
    """-E[log π(a|s) A(s, a)] and E[(V(s) - target)²]; A is not differentiated."""
    policy_loss = -(log_prob * advantages).mean()
    return policy_loss, torch.square(values - value_targets).mean()


class A2C(PPO):
    """PPO's training step: sample from all env runners, update, send the weights."""

    @classmethod
    def get_default_config(cls):
        return A2CConfig()


torch.set_num_threads(1)  # so small a network is slower with more threads
logging.getLogger("ray.rllib").setLevel(logging.ERROR)  # no banner about API stacks
ray.init("local", include_dashboard=False, log_to_driver=False, logging_level="error")

config = (
    A2CConfig()
    .environment(ENV)
    # Both envs are cheap: 8 copies in this process beat extra sampling processes.
    .env_runners(num_env_runners=0, num_envs_per_env_runner=8)
    .training(
        # 16 env steps of each of the 8 envs, PPO: 4000. Small batches, many updates.
        train_batch_size_per_learner=128,
        # The default. The advantage is the return of up to 16 steps, less V(s).
        lambda_=1.0,
        gamma=0.99,  # the default
        lr=2e-3,  # PPO's 5e-5 is for 30 epochs; here each batch is used once
    )
    .rl_module(model_config={"fcnet_hiddens": [64, 64]})  # default [256, 256]
    # 20 greedy episodes, side by side, when algo.evaluate() is called. Only with an
    # interval does evaluation get an env runner of its own, which can act greedily.
    .evaluation(
        evaluation_interval=1_000_000,
        evaluation_duration=20,
        evaluation_config={"explore": False, "num_envs_per_env_runner": 20},
    )
    # One train() goes on for 2000 env steps: 16 updates.
    .reporting(min_sample_timesteps_per_iteration=2000)
    .debugging(seed=SEED)
)
if ENV == "Acrobot-v1":  # Success is rare at first: larger batches, more exploration.
    config.update_from_dict(
        {
            "num_envs_per_env_runner": 16,
            "train_batch_size_per_learner": 512,
            "lr": 7e-4,
            "entropy_coeff": 0.05,
            "min_sample_timesteps_per_iteration": 10_000,
        }
    )

algo = config.build_algo()
start, env_steps, iteration, greedy_return = time.perf_counter(), 0, 0, -9999.0
while greedy_return < TARGET and env_steps < MAX_ENV_STEPS:
    iteration += 1
    env_steps = int(algo.train()["env_runners"]["num_env_steps_sampled_lifetime"])
    # In training, actions are drawn from the policy. What counts is its best action.
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
    sys.exit(f"A2C missed its target of {TARGET} within {MAX_ENV_STEPS:,} env steps.")
