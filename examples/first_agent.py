"""Your first RLlib agent: it learns to balance a pole, then shows what it can do."""

import logging
import os
import sys
import time

import gymnasium as gym
import ray
import torch
from ray.rllib.algorithms.ppo import PPOConfig

SEED = int(os.environ.get("SEED", 0))
TARGET = 195  # mean return of 20 greedy episodes; acting at random gives about 22

torch.set_num_threads(1)  # so small a network is slower with more threads
logging.getLogger("ray.rllib").setLevel(logging.ERROR)  # no banner about API stacks
ray.init("local", include_dashboard=False, log_to_driver=False, logging_level="error")

config = (
    PPOConfig()
    .environment("CartPole-v1")
    .env_runners(num_env_runners=0, num_envs_per_env_runner=16)
    .training(lr=3e-3, train_batch_size_per_learner=2048, num_epochs=6)
    .debugging(seed=SEED)
)
algo = config.build_algo()

start, mean_return = time.perf_counter(), 0.0
for iteration in range(1, 41):
    result = algo.train()
    mean_return = result["env_runners"]["episode_return_mean"]
    print(
        f"iteration {iteration:3d}   "
        f"env steps {int(result['num_env_steps_sampled_lifetime']):7,d}   "
        f"mean return {mean_return:6.1f}   "
        f"seconds {time.perf_counter() - start:5.1f}"
    )
    if mean_return >= 1.3 * TARGET:
        break

# Inference: Ray is not needed any more, only the trained network.
module = algo.get_module()
algo.stop()
ray.shutdown()
env, returns = gym.make("CartPole-v1"), []
for episode in range(20):
    observation, _ = env.reset(seed=1000 * SEED + episode)
    episode_return, done = 0.0, False
    while not done:
        with torch.no_grad():
            out = module.forward_inference({"obs": torch.tensor(observation)[None]})
        action = out["action_dist_inputs"].argmax().item()
        observation, reward, terminated, truncated, _ = env.step(action)
        episode_return += reward
        done = terminated or truncated
    returns.append(episode_return)

greedy_return = sum(returns) / len(returns)
print(f"greedy return {greedy_return:.1f} over 20 episodes, target {TARGET}")
if greedy_return < TARGET:
    sys.exit(f"The agent did not learn: it should reach {TARGET}.")
