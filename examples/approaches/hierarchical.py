"""Two levels learn together: one picks sub-goals, one walks; the reward is rare."""

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
TARGET = 0.9  # how often 100 greedy episodes find the treasure
MAX_ENV_STEPS = 200_000
STEPS, PATIENCE = 200, 10  # of an episode; of one sub-goal
MOVES = np.array([(0, -1), (1, 0), (0, 1), (-1, 0)])  # north, east, south, west
CORNER = 4  # the fifth sub-goal; the others are the four directions


class House:
    """Nine rooms of 5x5 cells. The treasure's door opens for who has the key.

    key  0   1 - 2
         |   |          a door is in the middle of a wall;
         3 - 4 - 5      key and treasure lie in a corner;
             |   #      the start is a random cell of room 4
         6 - 7   8  treasure
    """

    DOORS = {(0, 3), (1, 2), (1, 4), (3, 4), (4, 5), (4, 7), (5, 8), (6, 7)}

    def __init__(self, random):
        self.room, self.cell = 4, random.integers(0, 5, 2)
        self.has_key, self.steps = False, 0

    def behind(self, direction):
        """The room in that direction, or None where no open door leads."""
        there = self.room + (-3, 1, 3, -1)[direction]
        door = min(self.room, there), max(self.room, there)
        is_open = door in self.DOORS and (door != (5, 8) or self.has_key)
        return there if is_open else None

    def move(self, direction):
        """One step. True if it finds the treasure."""
        self.steps += 1
        cell = self.cell + MOVES[direction]
        if cell.min() >= 0 and cell.max() <= 4:
            self.cell = cell
        elif 2 in cell and self.behind(direction) is not None:
            self.room, self.cell = self.behind(direction), cell % 5
        self.has_key |= self.room == 0 and self.in_corner()
        return self.room == 8 and self.in_corner()

    def in_corner(self):
        return bool((self.cell == 0).all())

    def rooms_view(self):  # the wide scope: which room, and is the key in hand?
        return np.array([*np.eye(9)[self.room], self.has_key], np.float32)

    def cells_view(self):  # the narrow scope: where in this room, whichever it is
        return np.eye(25, dtype=np.float32)[5 * self.cell[1] + self.cell[0]]


class TwoLevels(MultiAgentEnv):
    """`high` picks a sub-goal, then a new agent `low_<n>` lives until that one ends."""

    def __init__(self, config=None):
        super().__init__()
        lows = [f"low_{n}" for n in range(STEPS)]
        self.agents = self.possible_agents = ["high", *lows]
        rooms = gym.spaces.Box(0.0, 1.0, (10,), np.float32)
        cells = gym.spaces.Box(0.0, 1.0, (30,), np.float32)
        self.observation_spaces = {"high": rooms, **dict.fromkeys(lows, cells)}
        walk = gym.spaces.Discrete(4)
        sub_goals = gym.spaces.Discrete(5)  # through one of four doors, or CORNER
        self.action_spaces = {"high": sub_goals, **dict.fromkeys(lows, walk)}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.house, self.tasks = House(self.np_random), 0
        return {"high": self.house.rooms_view()}, {}

    def step(self, actions):
        if "high" in actions:
            return self._pick(int(actions["high"]))
        return self._walk(actions)

    def _pick(self, sub_goal):  # nobody moves: the next to act is the low level
        house, self.sub_goal, self.patience = self.house, sub_goal, PATIENCE
        self.start = house.room
        self.target = house.room if sub_goal == CORNER else house.behind(sub_goal)
        going_on = {"__all__": False}
        if self.target is None or (sub_goal == CORNER and house.in_corner()):
            house.steps += 1  # nothing to do for the low level: a step is lost
            late = {"__all__": house.steps == STEPS}
            return {"high": house.rooms_view()}, {"high": 0.0}, going_on, late, {}
        self.tasks += 1
        return {f"low_{self.tasks - 1}": self._low_view()}, {}, going_on, going_on, {}

    def _walk(self, actions):
        ((low, direction),) = actions.items()
        house = self.house
        found = house.move(direction)
        late = not found and house.steps == STEPS
        self.patience -= 1
        lost = house.room not in (self.start, self.target)
        reached = house.room == self.target
        if self.sub_goal == CORNER:
            reached = reached and house.in_corner()
        rewards = {low: float(reached) - float(lost)}  # its own: no word of treasure
        if found:
            rewards["high"] = 1.0  # the only reward of the task
        task_over = reached or lost or self.patience == 0
        views = {low: self._low_view()}
        if task_over or found or late:
            views["high"] = house.rooms_view()
        terminated = {low: task_over, "__all__": found}
        return views, rewards, terminated, {"__all__": late}, {}

    def _low_view(self):
        return np.append(self.house.cells_view(), np.eye(5)[self.sub_goal]).astype("f4")


def play(episodes=100, random_high=False):
    """How often greedy policies find the treasure, or with sub-goals at random."""
    env, random, found = TwoLevels(), np.random.default_rng(SEED), 0
    for episode in range(episodes):
        views, _ = env.reset(seed=1000 * SEED + episode)
        done = False
        while not done:
            agent = "high" if "high" in views else next(iter(views))
            if agent == "high" and random_high:
                action = random.integers(5)
            else:
                module = algo.get_module(agent.split("_")[0])
                with torch.no_grad():
                    batch = {"obs": torch.tensor(views[agent])[None]}
                    out = module.forward_inference(batch)
                action = out["action_dist_inputs"].argmax().item()
            views, _, terminated, truncated, _ = env.step({agent: action})
            done = terminated["__all__"] or truncated["__all__"]
        found += terminated["__all__"]
    return found / episodes


def weights():
    """All weights of each level, in one array each."""
    levels = algo.learner_group.get_weights().items()
    return {name: np.concatenate([*map(np.ravel, w.values())]) for name, w in levels}


torch.set_num_threads(1)  # so small a network is slower with more threads
logging.getLogger("ray.rllib").setLevel(logging.ERROR)  # no banner about API stacks
ray.init("local", include_dashboard=False, log_to_driver=False, logging_level="error")

config = (
    PPOConfig()
    .environment(TwoLevels)
    .multi_agent(
        policies=["high", "low"],
        # All the agents low_0, low_1, ... share one policy.
        policy_mapping_fn=lambda agent_id, episode, **kwargs: agent_id.split("_")[0],
        # Until the first treasure nothing tells good sub-goals from bad ones: the
        # entropy bonus keeps all of them in play meanwhile.
        algorithm_config_overrides_per_module={
            "high": PPOConfig.overrides(entropy_coeff=0.3),
        },
    )
    .env_runners(num_env_runners=0, num_envs_per_env_runner=16)
    .training(
        lr=2e-3,  # default 5e-5, which suits far longer runs
        train_batch_size_per_learner=4096,
        minibatch_size=512,  # default 128: fewer, larger gradient steps
        num_epochs=6,  # default 30: reuse each batch less
        gamma=0.95,  # default 0.99: both levels have short ways to go
        lambda_=0.9,  # default 1.0: less variance in the advantages, some bias
        entropy_coeff=0.01,  # default 0: the low level keeps trying a little
        clip_param=0.2,  # default 0.3
        use_kl_loss=False,  # the clip alone keeps the policy near the old one
        vf_loss_coeff=0.5,  # default 1.0
        grad_clip=0.5,  # default: none
    )
    .rl_module(model_config={"fcnet_hiddens": [64, 64]})
    .debugging(seed=SEED)
)

algo = config.build_algo()
before = weights()
start, env_steps, iteration, greedy_return = time.perf_counter(), 0, 0, 0.0
while greedy_return < TARGET and env_steps < MAX_ENV_STEPS:
    iteration += 1
    result = algo.train()
    env_steps = int(result["num_env_steps_sampled_lifetime"])
    mean_return = result["env_runners"]["agent_episode_returns_mean"]["high"]
    print(
        f"iteration {iteration:3d}   env steps {env_steps:7,d}   "
        f"mean return {mean_return:6.1f}   "
        f"seconds {time.perf_counter() - start:5.1f}"
    )
    if mean_return >= TARGET:
        greedy_return = play()

random_return = play(random_high=True)
after = weights()
for level in ("high", "low"):
    changed = np.count_nonzero(after[level] != before[level])
    print(f"{level} level: {changed:,} of {after[level].size:,} weights changed")
algo.stop()
ray.shutdown()
print(f"the low level with sub-goals at random: {random_return:.2f}")
print(f"greedy return {greedy_return:.1f} over 100 episodes, target {TARGET}")
if greedy_return < TARGET:
    sys.exit(f"The two levels missed {TARGET} within {MAX_ENV_STEPS:,} env steps.")
if random_return > 0.5:
    sys.exit("Sub-goals at random should fail: then the high level learned nothing.")
