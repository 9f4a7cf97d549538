"""Train a policy, and write what a service needs to act with it, in two forms."""

import logging
import os
import sys
import tempfile
import time
import warnings
from collections import deque
from pathlib import Path

import gymnasium as gym
import numpy as np
import onnxruntime
import ray
import torch
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.connectors.env_to_module import MeanStdFilter
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner
from ray.rllib.utils.filter import RunningStat

SEED = int(os.environ.get("SEED", 0))
TARGET = 195  # mean return of 20 greedy episodes; acting at random gives about 20
MAX_ENV_STEPS = 100_000

# Name a folder in POLICY (or here). Without one, what is written goes at the end.
named = os.environ.get("POLICY")
temporary = None if named else tempfile.TemporaryDirectory()
FOLDER = Path(named or temporary.name).absolute()


class Cart(gym.Wrapper):
    """CartPole with sensors in millimetres and degrees, and a motor in newtons."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (4,), np.float32)
    action_space = gym.spaces.Box(-10, 10, (1,), np.float32)

    def __init__(self, config=None):
        super().__init__(gym.make("CartPole-v1"))
        self.history = deque(maxlen=100)  # what was seen, and the action it got

    def reset(self, **kwargs):
        observation, info = self.env.reset(**kwargs)
        self.seen = self.sensors(observation)
        return self.seen, info

    def step(self, action):
        self.history.append((self.seen, action))
        force = float(action[0])
        self.unwrapped.force_mag = abs(force)
        observation, *rest = self.env.step(int(force > 0))
        self.seen = self.sensors(observation)
        return self.seen, *rest

    def sensors(self, observation):
        position, speed, angle, turning = observation
        in_degrees = np.degrees([angle, turning])
        return np.array([2400 + 1000 * position, 1000 * speed, *in_degrees], np.float32)


class ForONNX(torch.nn.Module):
    """What the connectors and the network do, from observations to actions."""

    def __init__(self, runner):
        super().__init__()
        self.module = runner.module
        [piece] = runner.get_state()["env_to_module_connector"].values()
        stats = RunningStat.from_state(piece[None]["running_stats"][0])
        self.register_buffer("mean", torch.tensor(stats.mean))
        self.register_buffer("deviation", torch.tensor(stats.std + 1e-8))

    def forward(self, observations):
        # MeanStdFilter: in 64 bits, as there, and clipped.
        filtered = ((observations.double() - self.mean) / self.deviation).clip(-10, 10)
        out = self.module.forward_inference({"obs": filtered.float()})
        # GetActions with explore=False: the mean, and not the deviation behind it.
        greedy = out["action_dist_inputs"][:, :1]
        # NormalizeAndClipActions: from -1 ... 1 to the action space.
        return (-10 + (greedy + 1) * 10).clip(-10, 10)


def make_config(update_stats):
    def make_filter(env, spaces, device):  # RLlib calls this for each env runner
        return MeanStdFilter(update_stats=update_stats)

    return (
        PPOConfig()
        .environment(Cart)
        .env_runners(
            num_env_runners=0,
            num_envs_per_env_runner=16,
            env_to_module_connector=make_filter,
        )
        .training(
            lr=3e-3,
            train_batch_size_per_learner=2048,
            minibatch_size=256,
            num_epochs=6,
            gamma=0.98,
            lambda_=0.9,
            clip_param=0.2,
            use_kl_loss=False,
            vf_clip_param=float("inf"),
            vf_loss_coeff=0.5,
            grad_clip=0.5,
        )
        .rl_module(model_config={"fcnet_hiddens": [64, 64], "fcnet_activation": "tanh"})
        .debugging(seed=SEED)
    )


def play(act):
    """The returns of 20 episodes, from start states that no env runner begins with."""
    envs = [Cart() for _ in range(20)]
    first_seed = 1000 * SEED + 500  # RLlib's envs have the seeds SEED ... SEED + 15
    observations = np.array(
        [env.reset(seed=first_seed + i)[0] for i, env in enumerate(envs)]
    )
    returns, running = np.zeros(20), np.ones(20, bool)
    while running.any():
        actions = act(observations)
        for i in np.flatnonzero(running):
            observations[i], reward, terminated, truncated, _ = envs[i].step(actions[i])
            returns[i] += reward
            running[i] = not (terminated or truncated)
    return returns


torch.set_num_threads(1)  # so small a network is slower with more threads
logging.getLogger("ray.rllib").setLevel(logging.ERROR)  # no banner about API stacks
logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # nor about torchvision
warnings.filterwarnings("ignore", "`isinstance\\(treespec")  # PyTorch's own affair
gym.logger.min_level = gym.logger.ERROR  # no word about a second env runner's envs
ray.init("local", include_dashboard=False, log_to_driver=False, logging_level="error")

algo = make_config(update_stats=True).build_algo()
# An env runner as a service needs it: its filter learns no more.
acting = SingleAgentEnvRunner(config=make_config(update_stats=False))
start, env_steps, iteration, evaluated = time.perf_counter(), 0, 0, 0.0
while evaluated < 1.3 * TARGET and env_steps < MAX_ENV_STEPS:
    iteration += 1
    result = algo.train()
    env_steps = int(result["num_env_steps_sampled_lifetime"])
    mean_return = result["env_runners"]["episode_return_mean"]
    print(
        f"iteration {iteration:3d}   env steps {env_steps:7,d}   "
        f"mean return {mean_return:6.1f}   "
        f"seconds {time.perf_counter() - start:5.1f}"
    )
    if mean_return >= TARGET:
        acting.set_state(algo.env_runner.get_state())  # weights and filter
        episodes = acting.sample(num_episodes=16, explore=False)
        evaluated = np.mean([episode.get_return() for episode in episodes])
algo.stop()
ray.shutdown()
if evaluated < TARGET:  # nothing is written that cannot act
    sys.exit(f"PPO missed its target of {TARGET} within {MAX_ENV_STEPS:,} env steps.")

# 1. RLlib's own form: network and connectors, each as a folder.
acting.save_to_path(FOLDER / "rllib")
# 2. One file without RLlib or PyTorch.
torch.onnx.export(
    ForONNX(acting).eval(),
    (torch.zeros(2, 4),),
    FOLDER / "policy.onnx",
    input_names=["observations"],
    output_names=["actions"],
    dynamic_shapes=[{0: torch.export.Dim("batch")}],
    external_data=False,  # weights and all in one file
    verbose=False,
)
# 3. To check both: what the env runner saw, and the actions that it took.
histories = acting.env.unwrapped.get_attr("history")
pairs = [pair for history in histories for pair in history]
seen, actions = map(np.array, zip(*pairs, strict=True))
acting.stop()

session = onnxruntime.InferenceSession(FOLDER / "policy.onnx")
[answers] = session.run(None, {"observations": seen})
off = np.abs(answers - actions).max()
print(f"ONNX against the env runner: {len(seen):,} actions, at most {off:.1e} N off")
if off > 0.01:
    sys.exit("The exported policy acts otherwise than RLlib does.")


def network_alone(observations):
    with torch.no_grad():
        out = acting.module.forward_inference({"obs": torch.tensor(observations)})
    return out["action_dist_inputs"][:, :1].numpy()


alone = play(network_alone).mean()
print(f"the network without its connectors: return {alone:.1f}")
returns = play(lambda seen: session.run(None, {"observations": seen})[0])
np.savez(FOLDER / "check.npz", observations=seen, actions=actions, returns=returns)

greedy_return = returns.mean()
print(f"greedy return {greedy_return:.1f} over 20 episodes, target {TARGET}")
if alone > greedy_return / 2:
    sys.exit("The network alone should do far worse than with its connectors.")
if greedy_return < TARGET:
    sys.exit(f"The greedy return of the exported policy is below {TARGET}.")
