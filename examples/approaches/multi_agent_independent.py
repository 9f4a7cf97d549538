"""Two agents learn to work together: a policy for each."""

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
TARGET = 9.0  # team return of 100 greedy episodes; random moves get -3, the best 9.4
MAX_ENV_STEPS = 60_000


class TwoPlates(MultiAgentEnv):
    """Two agents on a 5x5 floor must stand on both plates at the same time."""

    PLATES = {(0, 0), (4, 4)}
    MOVES = np.array([(0, 0), (0, 1), (0, -1), (1, 0), (-1, 0)])

    def __init__(self, config=None):
        super().__init__()
        self.agents = self.possible_agents = ["ann", "ben"]
        view = gym.spaces.Box(0.0, 1.0, (50,), np.float32)
        self.observation_spaces = dict.fromkeys(self.agents, view)
        self.action_spaces = dict.fromkeys(self.agents, gym.spaces.Discrete(5))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        cells = self.np_random.permutation(25)[:2]  # two different cells
        self.ann, self.ben = (np.array(divmod(cell, 5)) for cell in cells)
        self.steps = 0
        return self._views(), {}

    def step(self, actions):  # an action from each: both move at the same time
        self.ann = np.clip(self.ann + self.MOVES[actions["ann"]], 0, 4)
        self.ben = np.clip(self.ben + self.MOVES[actions["ben"]], 0, 4)
        self.steps += 1
        done = {tuple(self.ann), tuple(self.ben)} == self.PLATES
        rewards = dict.fromkeys(self.agents, 5.0 if done else -0.1)  # they are a team
        too_late = not done and self.steps == 25
        return self._views(), rewards, {"__all__": done}, {"__all__": too_late}, {}

    def _views(self):
        def view(me, other):  # two plans of the floor: where I am, where the other is
            plans = np.zeros((2, 5, 5), np.float32)
            plans[0, *me] = plans[1, *other] = 1.0
            return plans.flatten()

        return {"ann": view(self.ann, self.ben), "ben": view(self.ben, self.ann)}


torch.set_num_threads(1)  # so small a network is slower with more threads
logging.getLogger("ray.rllib").setLevel(logging.ERROR)  # no banner about API stacks
gym.logger.min_level = gym.logger.ERROR  # no word about a second env runner's envs
ray.init("local", include_dashboard=False, log_to_driver=False, logging_level="error")

config = (
    PPOConfig()
    .environment(TwoPlates)
    # A policy for each, learning from what its own agent lives through.
    .multi_agent(
        policies={"ann", "ben"},
        policy_mapping_fn=lambda agent_id, episode, **kwargs: agent_id,
    )
    .env_runners(num_env_runners=0, num_envs_per_env_runner=16)
    .training(
        lr=2e-3,  # default 5e-5, which suits far longer runs
        train_batch_size_per_learner=2048,  # env steps; each agent acts once in each
        minibatch_size=512,  # default 128: fewer, larger gradient steps
        num_epochs=6,  # default 30: reuse each batch less
        gamma=0.95,  # default 0.99: an episode lasts 25 steps at most
        entropy_coeff=0.01,  # default 0.0: try things a little longer
        use_kl_loss=False,  # the clip alone keeps the policy near the old one
        vf_loss_coeff=0.5,  # default 1.0
        grad_clip=0.5,  # default: none
    )
    .evaluation(
        evaluation_interval=1_000_000,  # without one, evaluation would explore
        evaluation_duration=100,
        # One env: of many side by side the short episodes end first, and count twice.
        evaluation_config={"explore": False, "num_envs_per_env_runner": 1},
    )
    .debugging(seed=SEED)
)

algo = config.build_algo()
start, env_steps, iteration, team_return = time.perf_counter(), 0, 0, -np.inf
while team_return < TARGET + 0.2 and env_steps < MAX_ENV_STEPS:
    iteration += 1
    result = algo.train()
    env_steps = int(result["num_env_steps_sampled_lifetime"])
    mean_return = result["env_runners"]["episode_return_mean"]  # summed over agents
    print(
        f"iteration {iteration:3d}   env steps {env_steps:7,d}   "
        f"mean return {mean_return:6.1f}   "
        f"seconds {time.perf_counter() - start:5.1f}"
    )
    if mean_return >= TARGET:
        team_return = algo.evaluate()["env_runners"]["episode_return_mean"]

# The verdict, from starts that nothing else has used: each acts with its own policy.
policies = {agent: algo.get_module(agent) for agent in ("ann", "ben")}
algo.stop()
ray.shutdown()
env, returns = TwoPlates(), []
for episode in range(100):
    views, _ = env.reset(seed=1000 * SEED + episode)
    team_return, done = 0.0, False
    while not done:
        actions = {}
        for agent, view in views.items():
            with torch.no_grad():
                batch = {"obs": torch.tensor(view)[None]}
                logits = policies[agent].forward_inference(batch)["action_dist_inputs"]
            actions[agent] = logits.argmax().item()
        views, rewards, terminated, truncated, _ = env.step(actions)
        team_return += sum(rewards.values())
        done = terminated["__all__"] or truncated["__all__"]
    returns.append(team_return)

greedy_return = np.mean(returns)
print(f"greedy return {greedy_return:.1f} over 100 episodes, target {TARGET}")
if greedy_return < TARGET:
    sys.exit(f"The team missed its target of {TARGET} in {MAX_ENV_STEPS:,} env steps.")
