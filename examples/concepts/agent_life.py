"""The whole life of an agent: config, build, train, evaluate, save, restore, act."""

import logging
import os
import sys
import tempfile
from pathlib import Path

import gymnasium as gym
import ray
import torch
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.core.rl_module.rl_module import RLModule

SEED = int(os.environ.get("SEED", 0))
TARGET = 195  # mean return of 20 greedy episodes; acting at random gives about 22

torch.set_num_threads(1)  # so small a network is slower with more threads
logging.getLogger("ray.rllib").setLevel(logging.ERROR)  # no banner about API stacks
ray.init("local", include_dashboard=False, log_to_driver=False, logging_level="error")
folder = tempfile.TemporaryDirectory()

# 1. Configure: a plain description, nothing runs yet.
config = (
    PPOConfig()
    .environment("CartPole-v1")
    .env_runners(num_env_runners=0, num_envs_per_env_runner=16)
    .training(lr=3e-3, train_batch_size_per_learner=2048, num_epochs=6)
    .evaluation(
        evaluation_interval=1_000_000,  # any number: without one, it explores
        evaluation_duration=20,
        # 20 environments side by side; the first 20 episodes to end are counted.
        evaluation_config={"explore": False, "num_envs_per_env_runner": 20},
    )
    .debugging(seed=SEED)
)
print(f"1 config    {type(config).__name__}, lr {config.lr}")

# 2. Build: now the environment, the network and the actors exist.
algo = config.build_algo()
weights = sum(tensor.numel() for tensor in algo.get_module().parameters())
print(f"2 build     {type(algo).__name__}, {weights:,} weights")

# 3. Train: each call samples one batch and learns from it.
for _ in range(20):
    result = algo.train()
    if result["env_runners"]["episode_return_mean"] > 1.3 * TARGET:
        break
mean_return = result["env_runners"]["episode_return_mean"]
print(f"3 train     {algo.iteration} iterations, mean return {mean_return:.1f}")

# 4. Evaluate: episodes of their own, without exploration.
evaluated = algo.evaluate()["env_runners"]["episode_return_mean"]
print(f"4 evaluate  mean return {evaluated:.1f}")

# 5. Save: a folder with everything that training needs to go on. Then forget it all.
checkpoint = algo.save_to_path(Path(folder.name) / "checkpoint")
size = sum(
    file.stat().st_size for file in Path(checkpoint).rglob("*") if file.is_file()
)
print(f"5 save      a folder of {size / 1e6:.1f} MB")
iteration, before = algo.iteration, algo.get_module().state_dict()
algo.stop()
del algo

# 6. Restore: the same algorithm, which goes on where the other one stopped.
restored = Algorithm.from_checkpoint(checkpoint)
after = restored.get_module().state_dict()
equal = all(torch.equal(before[name], after[name]) for name in before)
restored.train()
print(f"6 restore   equal weights: {equal}, next iteration {restored.iteration}")
if not equal or restored.iteration != iteration + 1:
    sys.exit("The restored algorithm did not go on where the saved one stopped.")
restored.stop()
ray.shutdown()

# 7. Act: only the network is loaded from the folder. Ray is not running any more.
module = RLModule.from_checkpoint(
    Path(checkpoint) / "learner_group" / "learner" / "rl_module" / "default_policy"
)
distribution = module.get_inference_action_dist_cls()
env, returns = gym.make("CartPole-v1"), []
for episode in range(20):
    observation, _ = env.reset(seed=1000 * SEED + episode)
    episode_return, done = 0.0, False
    while not done:
        with torch.no_grad():
            out = module.forward_inference({"obs": torch.tensor(observation)[None]})
        best = distribution.from_logits(out["action_dist_inputs"]).to_deterministic()
        observation, reward, terminated, truncated, _ = env.step(best.sample().item())
        episode_return += reward
        done = terminated or truncated
    returns.append(episode_return)
folder.cleanup()
print(f"7 act       Ray is running: {ray.is_initialized()}")
if ray.is_initialized():
    sys.exit("Ray is running, though acting should not need it.")

greedy_return = sum(returns) / len(returns)
print(f"greedy return {greedy_return:.1f} over 20 episodes, target {TARGET}")
if greedy_return < TARGET:
    sys.exit(f"The agent should reach {TARGET}.")
