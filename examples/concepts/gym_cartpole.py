"""RLlib trains an environment of the old gym package, through an adapter."""

import logging
import os
import sys
import time

import gym  # says on stderr that nobody maintains it any more
import gymnasium
import ray
import torch
from ray.rllib.algorithms.ppo import PPOConfig

SEED = int(os.environ.get("SEED", 0))
TARGET = 195  # mean return of 20 greedy episodes; 200 is the most CartPole-v0 gives
MAX_ENV_STEPS = 100_000


def to_gymnasium(space):
    """The same space in Gymnasium's classes; RLlib asks for those."""
    if isinstance(space, gym.spaces.Box):
        return gymnasium.spaces.Box(space.low, space.high, space.shape, space.dtype)
    if isinstance(space, gym.spaces.Discrete):
        return gymnasium.spaces.Discrete(int(space.n), start=int(space.start))
    raise TypeError(f"Tell me how to translate {space}.")


class FromGym(gymnasium.Env):
    """An environment of gym 0.26, as one of Gymnasium."""

    def __init__(self, config):
        # The checker asks for np.bool8, which NumPy 2 does not have.
        # For one that returns four values, add apply_api_compatibility=True.
        self.env = gym.make(config["id"], disable_env_checker=True)
        self.observation_space = to_gymnasium(self.env.observation_space)
        self.action_space = to_gymnasium(self.env.action_space)

    def reset(self, *, seed=None, options=None):
        return self.env.reset(seed=seed, options=options)

    def step(self, action):
        return self.env.step(action)

    def close(self):
        self.env.close()


torch.set_num_threads(1)  # so small a network is slower with more threads
logging.getLogger("ray.rllib").setLevel(logging.ERROR)  # no banner about API stacks
for package in (gym, gymnasium):  # no word about old or repeated environments
    package.logger.min_level = package.logger.ERROR
ray.init("local", include_dashboard=False, log_to_driver=False, logging_level="error")

config = (
    PPOConfig()
    .environment(FromGym, env_config={"id": "CartPole-v0"})
    .env_runners(num_env_runners=0, num_envs_per_env_runner=16)
    .training(
        lr=3e-3,  # default 5e-5, which suits far longer runs
        train_batch_size_per_learner=2048,  # default 4000: update more often
        minibatch_size=256,  # default 128: fewer, larger gradient steps
        num_epochs=6,  # default 30: reuse each batch less
        gamma=0.98,  # default 0.99
        lambda_=0.9,  # default 1.0: less variance in the advantages, some bias
        clip_param=0.2,  # default 0.3
        use_kl_loss=False,  # the clip alone keeps the policy near the old one
        vf_clip_param=float("inf"),  # default 10, far below squared errors here
        vf_loss_coeff=0.5,  # default 1.0
        grad_clip=0.5,  # default: none
    )
    .rl_module(model_config={"fcnet_hiddens": [64, 64], "fcnet_activation": "tanh"})
    .evaluation(
        evaluation_interval=1_000_000,  # without one, evaluation would explore
        evaluation_duration=20,
        evaluation_config={"explore": False, "num_envs_per_env_runner": 20},
    )
    .debugging(seed=SEED)
)

algo = config.build_algo()
start, env_steps, iteration, greedy_return = time.perf_counter(), 0, 0, 0.0
while greedy_return < TARGET and env_steps < MAX_ENV_STEPS:
    iteration += 1
    result = algo.train()
    env_steps = int(result["num_env_steps_sampled_lifetime"])
    mean_return = result["env_runners"]["episode_return_mean"]
    seconds = time.perf_counter() - start
    print(
        f"iteration {iteration:3d}   env steps {env_steps:7,d}   "
        f"mean return {mean_return:6.1f}   seconds {seconds:5.1f}"
    )
    if mean_return >= 150:
        greedy_return = algo.evaluate()["env_runners"]["episode_return_mean"]
algo.stop()
ray.shutdown()
print(f"greedy return {greedy_return:.1f} over 20 episodes, target {TARGET}")
if greedy_return < TARGET:
    sys.exit(f"PPO missed its target of {TARGET} within {MAX_ENV_STEPS:,} env steps.")
