"""A policy trained with RLlib, exported to ONNX, plays without RLlib and PyTorch."""

import logging
import os
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path

import numpy as np
import onnxruntime
import ray
import torch
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.core.columns import Columns

SEED = int(os.environ.get("SEED", 0))
TARGET = 450  # mean return of 20 greedy episodes; 500 is the most CartPole-v1 gives
MAX_ENV_STEPS = 100_000


class Logits(torch.nn.Module):
    """The RLModule as a plain function: observations in, logits out, no dicts."""

    def __init__(self, rl_module):
        super().__init__()
        self.rl_module = rl_module

    def forward(self, observations):
        batch = {Columns.OBS: observations}
        return self.rl_module.forward_inference(batch)[Columns.ACTION_DIST_INPUTS]


# What you would run elsewhere: on a phone, in a game, in a service.
PLAY = textwrap.dedent("""
    import sys
    import gymnasium as gym
    import onnxruntime

    network = onnxruntime.InferenceSession("policy.onnx")
    env, total = gym.make("CartPole-v1"), 0.0
    for seed in range(20):
        observation, _ = env.reset(seed=seed)
        done = False
        while not done:
            [logits] = network.run(None, {"observations": observation[None]})
            step = env.step(logits.argmax())
            observation, reward, terminated, truncated, _ = step
            total += reward
            done = terminated or truncated
    print("ray" in sys.modules, "torch" in sys.modules, total / 20)
""")

torch.set_num_threads(1)  # so small a network is slower with more threads
for name in ("ray.rllib", "torch.onnx"):
    logging.getLogger(name).setLevel(logging.ERROR)  # no banner about API stacks
ray.init("local", include_dashboard=False, log_to_driver=False, logging_level="error")

config = (
    PPOConfig()
    .environment("CartPole-v1")
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
start, env_steps, iteration, evaluated = time.perf_counter(), 0, 0, 0.0
while evaluated < TARGET + 20 and env_steps < MAX_ENV_STEPS:
    iteration += 1
    result = algo.train()
    env_steps = int(result["num_env_steps_sampled_lifetime"])
    mean_return = result["env_runners"]["episode_return_mean"]
    seconds = time.perf_counter() - start
    print(
        f"iteration {iteration:3d}   env steps {env_steps:7,d}   "
        f"mean return {mean_return:6.1f}   seconds {seconds:5.1f}"
    )
    if mean_return >= 300:
        evaluated = algo.evaluate()["env_runners"]["episode_return_mean"]
policy = Logits(algo.get_module()).eval()
algo.stop()
ray.shutdown()

with tempfile.TemporaryDirectory() as folder:
    file = Path(folder) / "policy.onnx"
    torch.onnx.export(
        policy,
        (torch.zeros(2, 4),),
        file,
        input_names=["observations"],
        output_names=["logits"],
        dynamic_shapes=({0: torch.export.Dim("batch")},),  # any number of them
        dynamo=True,  # PyTorch's exporter of today
        external_data=False,  # the weights in the same file
        verbose=False,
    )
    print(f"policy.onnx: {file.stat().st_size / 1000:.0f} kB")

    # The same numbers from both, for 1000 observations in one batch.
    observations = torch.randn(1000, 4)
    with torch.no_grad():
        expected = policy(observations).numpy()
    session = onnxruntime.InferenceSession(file)
    [found] = session.run(None, {"observations": observations.numpy()})
    print(f"largest difference of the logits: {np.abs(found - expected).max():.0e}")

    played = subprocess.run(
        [sys.executable, "-c", PLAY], cwd=folder, capture_output=True, text=True
    )
with_ray, with_torch, greedy_return = played.stdout.split()
print(f"played with ray imported: {with_ray}, with torch imported: {with_torch}")
greedy_return = float(greedy_return)
print(f"greedy return {greedy_return:.1f} over 20 episodes, target {TARGET}")
if greedy_return < TARGET:
    sys.exit(f"The exported policy missed its target of {TARGET}.")
if not np.allclose(found, expected, atol=1e-4) or "True" in (with_ray, with_torch):
    sys.exit("ONNX should give the same numbers, without Ray and PyTorch.")
