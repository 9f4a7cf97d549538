"""RLlib's replay buffers by hand: capacity, n-step returns, priorities and weights."""

import sys
from collections import Counter

import numpy as np
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.utils.replay_buffers import (
    EpisodeReplayBuffer,
    PrioritizedEpisodeReplayBuffer,
)


def episode(name, first):
    """Four steps: observations first, first + 1, ...; rewards 1, 2, 3, 4."""
    made = SingleAgentEpisode(id_=name)
    made.add_env_reset(observation=first)
    for step in range(1, 5):
        made.add_env_step(
            observation=first + step,
            action=0,
            reward=float(step),
            terminated=step == 4,
        )
    return made


def check(what, found, expected):
    print(f"{what:48s}{found}")
    if not np.allclose(found, expected, rtol=1e-5):
        sys.exit(f"{what} should be {expected}.")


print("Capacity counts env steps; the oldest episodes leave whole")
buffer = EpisodeReplayBuffer(capacity=10)
buffer.add([episode("A", 0), episode("B", 10)])
check("  after two episodes of 4 steps", buffer.get_num_timesteps(), 8)
buffer.add(episode("C", 20))
check("  after the third", buffer.get_num_timesteps(), 8)
print("  it holds", [kept.id_ for kept in buffer.episodes])

print("n-step returns: r1 + gamma r2, and the observation two steps later")
buffer = EpisodeReplayBuffer()
buffer.add(episode("A", 0))
transitions = buffer.sample(num_items=50, n_step=2, gamma=0.5, sample_episodes=True)
found = {int(t.get_observations(0)): t for t in transitions}
check("  reward from observation 0", found[0].get_rewards(0), 1 + 0.5 * 2)
check("  reward from observation 1", found[1].get_rewards(0), 2 + 0.5 * 3)
check("  observation after 0", found[0].get_observations(1), 2)

print("Priorities 1, 2, 3, 4: drawn in proportion, weighted the other way round")
buffer = PrioritizedEpisodeReplayBuffer(alpha=1.0)
buffer.add(episode("A", 0))
for _ in range(100):  # priorities can only be set for what was just sampled
    (transition,) = buffer.sample(num_items=1, n_step=1)
    buffer.update_priorities(np.array([1.0 + transition.get_observations(0)]))
draws = buffer.sample(num_items=10_000, n_step=1, beta=1.0)
counts = Counter(int(t.get_observations(0)) for t in draws)
shares = [counts[i] / len(draws) for i in range(4)]
print("  shares of 10,000 draws", shares)
if not np.allclose(shares, [0.1, 0.2, 0.3, 0.4], atol=0.03):
    sys.exit("The draws should follow the priorities.")
weights = {
    int(t.get_observations(0)): t.get_extra_model_outputs("weights", 0) for t in draws
}
# Importance weights (N p_i)^-beta, divided by the largest: for p_0 = 1/10 that is 2.5.
check(
    "  weights, beta 1",
    [round(float(weights[i]), 6) for i in range(4)],
    [1, 1 / 2, 1 / 3, 1 / 4],
)

buffer.add(episode("B", 10))
draws = buffer.sample(num_items=10_000, n_step=1)
share = sum(t.get_observations(0) >= 10 for t in draws) / len(draws)
print("  share of a new episode: its steps begin with the highest priority", share)
if abs(share - 16 / 26) > 0.03:
    sys.exit("New steps should have the highest priority so far, 4.")
