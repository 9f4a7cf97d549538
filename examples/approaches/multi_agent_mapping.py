"""Who plays with which policy: one speaker, two listeners, and two policies."""

import logging
import os
import sys
import time

import gymnasium as gym
import numpy as np
import ray
import torch
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.env.multi_agent_env import MultiAgentEnv

SEED = int(os.environ.get("SEED", 0))
TARGET = 15  # mean team return of 100 greedy episodes; 16 at most, 4 by guessing
MAX_ENV_STEPS = 60_000


class Colours(MultiAgentEnv):
    """Eight rounds: the speaker sees a colour and says a word, two others guess."""

    def __init__(self, config=None):
        super().__init__()
        self.agents = self.possible_agents = ["speaker_0", "listener_0", "listener_1"]
        box, choice = gym.spaces.Box, gym.spaces.Discrete
        self.observation_spaces = {  # a colour (of 4), or a word (of 6)
            "speaker_0": box(0.0, 1.0, (4,), np.float32),
            "listener_0": box(0.0, 1.0, (6,), np.float32),
            "listener_1": box(0.0, 1.0, (6,), np.float32),
        }
        self.action_spaces = {
            "speaker_0": choice(6),
            "listener_0": choice(4),
            "listener_1": choice(4),
        }

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.rounds = 0
        return self._show_colour(), {}

    def _show_colour(self):
        self.colour = int(self.np_random.integers(4))
        return {"speaker_0": np.eye(4, dtype=np.float32)[self.colour]}

    def step(self, actions):
        rewards, over = {}, False
        if "speaker_0" in actions:  # it has spoken: both listeners hear the word
            word = np.eye(6, dtype=np.float32)[actions["speaker_0"]]
            views = {"listener_0": word, "listener_1": word}
        else:  # both have guessed: half a point each if right, as much for the speaker
            for agent, guess in actions.items():
                rewards[agent] = 0.5 * (guess == self.colour)
            rewards["speaker_0"] = sum(rewards.values())
            self.rounds += 1
            over = self.rounds == 8
            views = {} if over else self._show_colour()
        return views, rewards, {"__all__": over}, {"__all__": False}, {}


torch.set_num_threads(1)  # so small a network is slower with more threads
logging.getLogger("ray.rllib").setLevel(logging.ERROR)  # no banner about API stacks
ray.init("local", include_dashboard=False, log_to_driver=False, logging_level="error")


def policy_of(agent_id, episode, **kwargs):
    """Called when an agent first appears in an episode, which it then plays with it."""
    return agent_id.split("_")[0]  # "listener_0" and "listener_1": "listener"


config = (
    PPOConfig()
    .environment(Colours)
    .multi_agent(policies={"speaker", "listener"}, policy_mapping_fn=policy_of)
    .env_runners(num_env_runners=0, num_envs_per_env_runner=16)
    .training(
        lr=2e-3,
        train_batch_size_per_learner=2048,
        minibatch_size=512,
        num_epochs=6,
        gamma=0.0,  # a round changes nothing for the next one
        entropy_coeff=0.05,
        use_kl_loss=False,
        grad_clip=0.5,
    )
    .debugging(seed=SEED)
)

algo = config.build_algo()
start, env_steps, iteration, mean_return = time.perf_counter(), 0, 0, 0.0
while mean_return < 1.05 * TARGET and env_steps < MAX_ENV_STEPS:
    iteration += 1
    result = algo.train()
    env_steps = int(result["num_env_steps_sampled_lifetime"])
    mean_return = result["env_runners"]["episode_return_mean"]
    print(
        f"iteration {iteration:3d}   env steps {env_steps:7,d}   "
        f"mean return {mean_return:6.1f}   "
        f"seconds {time.perf_counter() - start:5.1f}"
    )
for name in ("agent_episode_returns_mean", "module_episode_returns_mean"):
    means = result["env_runners"][name]
    print(name, {key: round(float(means[key]), 1) for key in sorted(means)})
policies = {name: algo.get_module(name) for name in ("speaker", "listener")}
algo.stop()
ray.shutdown()


def act(agent, view):
    with torch.no_grad():
        batch = {"obs": torch.tensor(view)[None]}
        out = policies[policy_of(agent, None)].forward_inference(batch)
    return out["action_dist_inputs"].argmax().item()


env, returns, language = Colours(), [], {}
for episode in range(100):
    views, _ = env.reset(seed=1000 * SEED + episode)
    team_return, over = 0.0, False
    while not over:
        actions = {agent: act(agent, view) for agent, view in views.items()}
        if "speaker_0" in actions:
            language[env.colour] = actions["speaker_0"]
        views, rewards, terminated, _, _ = env.step(actions)
        team_return += sum(rewards.values())
        over = terminated["__all__"]
    returns.append(team_return)

print("the word for each colour:", dict(sorted(language.items())))
greedy_return = np.mean(returns)
print(f"greedy return {greedy_return:.1f} over 100 episodes, target {TARGET}")
if greedy_return < TARGET:
    sys.exit(f"They found no language in {MAX_ENV_STEPS:,} env steps: {TARGET} missed.")
