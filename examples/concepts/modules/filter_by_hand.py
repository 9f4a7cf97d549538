"""What goes into a MeanStdFilter and what comes out, without an algorithm or Ray."""

import sys

import gymnasium as gym
import numpy as np
from ray.rllib.connectors.env_to_module import MeanStdFilter
from ray.rllib.env.single_agent_episode import SingleAgentEpisode

SPACE = gym.spaces.Box(-np.inf, np.inf, (2,), np.float32)


def make(**options):
    piece = MeanStdFilter(**options)
    piece.input_observation_space = SPACE  # a pipeline sets this for each piece
    return piece


def through(piece, observation):
    """Send one observation through a connector piece, as an env runner does."""
    episode = SingleAgentEpisode(observation_space=SPACE)
    episode.add_env_reset(observation=np.array(observation, np.float32))
    piece(rl_module=None, batch={}, episodes=[episode])
    return episode.get_observations(-1)  # the piece has replaced it


def check(what, found, expected):
    if not np.allclose(found, expected, atol=1e-3):
        sys.exit(f"{what}: expected {expected}, but RLlib says {found}.")


rng = np.random.default_rng(0)
observations = rng.normal([2400, 0.5], [300, 0.01], (1000, 2)).astype(np.float32)
trained = make()
print("observation              what the network gets")
for number, observation in enumerate(observations, start=1):
    seen = through(trained, observation)
    if number in (1, 2, 3, 10, 1000):
        print(f"{number:4d}  {observation[0]:8.1f} {observation[1]:7.4f}", end="")
        print(f"   {seen[0]:6.2f} {seen[1]:6.2f}")
        so_far = observations[:number]
        if number == 1:  # no deviation yet
            check("the first", seen, [0, 0])
        else:  # the observation itself counts already
            mean, std = so_far.mean(0), so_far.std(0, ddof=1)
            check(f"observation {number}", seen, (observation - mean) / std)

# To act later, the network needs the filter's numbers, too, but no new ones.
acting = make(update_stats=False)
acting.set_state(trained.get_state())
twice = [through(acting, [2500, 0.5]) for _ in range(2)]
print("the same twice, update_stats=False:", *np.round(twice, 2))
check("the same twice", twice[0], twice[1])
far = through(acting, [1e6, 0.5])
print("far away, it is clipped to 10:     ", far.round(2))
check("far away", far[0], 10)
fresh = through(make(update_stats=False), [2500, 0.5])
print("without the state, all is lost:    ", fresh)
check("without the state", fresh, [10, 10])
