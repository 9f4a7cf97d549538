"""An episode built by hand: its parts, its pieces, and how to look back."""

import sys

from ray.rllib.env.single_agent_episode import SingleAgentEpisode


def show(code, expected):
    """Print what an expression gives; it has to be what is expected."""
    value = eval(code)
    print(f"{code:73s}{value}")
    if value != expected:
        sys.exit(f"{code} should be {expected}.")


episode = SingleAgentEpisode()
episode.add_env_reset(observation=0)
for step in range(1, 5):
    episode.add_env_step(observation=step, action=10 * step, reward=float(step))

show("len(episode)", 4)
show("episode.get_observations()", [0, 1, 2, 3, 4])
show("episode.get_actions()", [10, 20, 30, 40])
show("episode.get_return()", 10.0)
show("episode.get_observations(-1)", 4)
show("episode.get_observations(slice(1, 3))", [1, 2])

# What sample() does when its steps are used up: cut here, and go on in a new piece.
piece = episode.cut(len_lookback_buffer=2)
piece.add_env_step(observation=5, action=50, reward=5.0)
piece.add_env_step(observation=6, action=60, reward=6.0, terminated=True)

show("(piece.t_started, piece.t, len(piece))", (4, 6, 2))
show("piece.get_observations()", [4, 5, 6])
show("piece.get_return()", 11.0)  # of this piece only
# Counted from the start of the piece, -1 and -2 are what came before it.
show("piece.get_observations(slice(-2, 0), neg_index_as_lookback=True)", [2, 3])
show("piece.get_rewards(slice(-2, 0), neg_index_as_lookback=True)", [3.0, 4.0])
show("piece.get_observations([-4, -3], neg_index_as_lookback=True, fill=0)", [0, 0])

episode.concat_episode(piece)  # and back together
show("episode.get_observations()", [0, 1, 2, 3, 4, 5, 6])
show("(episode.get_return(), episode.is_done)", (21.0, True))
