"""Self-play: a player learns Nim against older copies of itself, which are frozen."""

import logging
import os
import sys
import time

import gymnasium as gym
import numpy as np
import ray
import torch
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.env.multi_agent_env import MultiAgentEnv

SEED = int(os.environ.get("SEED", 0))
TARGET = 0.9  # mean return against a perfect player, who punishes every mistake
MAX_ENV_STEPS = 150_000
HEAP = 21


class Nim(MultiAgentEnv):
    """Players take one, two or three matches in turn; who takes the last one wins."""

    def __init__(self, config=None):
        super().__init__()
        self.agents = self.possible_agents = ["ann", "ben"]
        heap = gym.spaces.Box(0.0, 1.0, (HEAP + 1,), np.float32)
        self.observation_spaces = dict.fromkeys(self.agents, heap)
        self.action_spaces = dict.fromkeys(self.agents, gym.spaces.Discrete(3))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.heap = int(self.np_random.integers(4, HEAP + 1))
        self.player, self.waiting = self.np_random.permutation(self.agents).tolist()
        return {self.player: self._view()}, {}  # whoever sees something acts next

    def step(self, actions):  # holds one action: that of the player whose turn it is
        self.heap -= min(actions[self.player] + 1, self.heap)
        if self.heap == 0:  # one has moved, but both get a reward
            rewards = {self.player: 1.0, self.waiting: -1.0}
            return {}, rewards, {"__all__": True}, {"__all__": False}, {}
        self.player, self.waiting = self.waiting, self.player
        going_on = {"__all__": False}
        return {self.player: self._view()}, {}, going_on, going_on, {}

    def _view(self):
        return np.eye(HEAP + 1, dtype=np.float32)[self.heap]


def against_perfect_player(module, seed, games=100):
    """Greedy play from positions that a perfect player would win."""
    with torch.no_grad():  # the best move for every heap, in one forward pass
        batch = {"obs": torch.eye(HEAP + 1)}
        logits = module.forward_inference(batch)["action_dist_inputs"]
    moves, random, wins = logits.argmax(-1).numpy() + 1, np.random.default_rng(seed), 0
    for _ in range(games):
        heap = int(random.choice([n for n in range(4, HEAP + 1) if n % 4]))
        while True:
            heap -= moves[heap]
            if heap <= 0:
                wins += 1
                break
            heap -= heap % 4 or random.integers(1, 4)  # perfect: leave a multiple of 4
            if heap <= 0:
                break
    return (2 * wins - games) / games


def freeze(name):
    """Add a copy of the player as it is now, and let the player meet all its copies."""
    older.append(name)

    def who_plays(agent_id, episode, **kwargs):
        # One of the two is the player, the other any older copy; the episode decides.
        number = hash(episode.id_)
        if agent_id == ("ann", "ben")[number % 2]:
            return "player"
        return older[number // 2 % len(older)]

    player = algo.get_module("player")
    algo.add_module(
        name,
        RLModuleSpec.from_module(player),
        new_agent_to_module_mapping_fn=who_plays,
    )
    # The copy has new weights. Give it the player's, in the Learner and in all env
    # runners. sync_weights() would not do: an env runner takes what it is sent only if
    # the Learner has made an update since. What comes without a number, it takes.
    weights = {"rl_module": {name: player.get_state()}}
    algo.set_state({"learner_group": {"learner": weights}})
    algo.env_runner_group.foreach_env_runner(lambda runner: runner.set_state(weights))
    copy = algo.get_module(name).state_dict()
    if not all(torch.equal(copy[key], new) for key, new in player.state_dict().items()):
        sys.exit("The copy is not the player.")


torch.set_num_threads(1)  # so small a network is slower with more threads
logging.getLogger("ray.rllib").setLevel(logging.ERROR)  # no banner about API stacks
ray.init("local", include_dashboard=False, log_to_driver=False, logging_level="error")

config = (
    PPOConfig()
    .environment(Nim)
    .multi_agent(
        policies={"player"},
        policy_mapping_fn=lambda agent_id, episode, **kwargs: "player",
        policies_to_train=["player"],  # the copies never learn
    )
    .env_runners(num_env_runners=0, num_envs_per_env_runner=16)
    .training(
        lr=2e-3,
        train_batch_size_per_learner=2048,  # env steps; here one agent acts in each
        minibatch_size=512,
        num_epochs=6,
        lambda_=0.8,  # default 1.0: a good move is not blamed for later mistakes
        entropy_coeff=0.1,  # default 0.0: no move is given up for good too early
        use_kl_loss=False,
        grad_clip=0.5,
    )
    .debugging(seed=SEED)
)

algo, older = config.build_algo(), []
freeze("copy_0")  # the first opponent knows nothing
start, env_steps, iteration, evaluated = time.perf_counter(), 0, 0, -1.0
while evaluated < TARGET + 0.06 and env_steps < MAX_ENV_STEPS:
    iteration += 1
    result = algo.train()
    env_steps = int(result["num_env_steps_sampled_lifetime"])
    evaluated = against_perfect_player(algo.get_module("player"), seed=10**6)
    print(
        f"iteration {iteration:3d}   env steps {env_steps:7,d}   "
        f"greedy return {evaluated:6.1f}   "
        f"seconds {time.perf_counter() - start:5.1f}"
    )
    # Mean return against the copies, from -1 to 1: if it beats them, add a better one.
    against_copies = result["env_runners"]["module_episode_returns_mean"]["player"]
    if against_copies > 0.4 and evaluated < TARGET + 0.06:
        freeze(f"copy_{len(older)}")
        print(
            f"it gets {against_copies:.2f} against its copies: {older[-1]} joins them"
        )

copies = {name: algo.get_module(name) for name in older}
strengths = [against_perfect_player(copy, seed=SEED) for copy in copies.values()]
for name, strength in zip(older, strengths, strict=True):
    print(f"{name} against the perfect player: {strength:.1f}")
player = algo.get_module("player")
algo.stop()
ray.shutdown()
greedy_return = against_perfect_player(player, seed=SEED)
print(f"greedy return {greedy_return:.1f} over 100 episodes, target {TARGET}")
if greedy_return < TARGET:
    sys.exit(f"The player missed {TARGET} within {MAX_ENV_STEPS:,} env steps.")
if len(older) < 2 or strengths[0] > 0:
    sys.exit("The player should have met at least one better copy of itself.")
