"""Record what a mediocre policy does, and look at the file before you train on it."""

import os
import sys
import tempfile
from pathlib import Path

import gymnasium as gym
import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet

SEED = int(os.environ.get("SEED", 0))

rng, env = np.random.default_rng(SEED), gym.make("CartPole-v1")


def behaviour(observation):
    """Pushes to the side that the pole leans to; 7 times in 10 at random instead."""
    return int(observation[2] > 0) if rng.random() > 0.7 else int(rng.integers(2))


rows, episodes = [], 0  # a row is one step: RLlib expects these column names
while len(rows) < 20_000:
    observation, _ = env.reset(seed=100_000 * SEED + episodes)
    done = False
    while not done:
        action = behaviour(observation)
        new_observation, reward, terminated, truncated, _ = env.step(action)
        row = {"eps_id": str(episodes), "obs": observation.tolist(), "actions": action}
        row |= {"rewards": reward, "new_obs": new_observation.tolist()}
        rows.append(row | {"terminateds": terminated, "truncateds": truncated})
        observation, done = new_observation, terminated or truncated
    episodes += 1

with tempfile.TemporaryDirectory() as folder:
    file = Path(folder) / "cartpole.parquet"
    parquet.write_table(pa.Table.from_pylist(rows), file)
    print(f"{file.name}: {file.stat().st_size / 1e6:.1f} MB")
    table = parquet.read_table(file)  # from here on we know only the file

print(table.schema.to_string())
returns = table.group_by("eps_id").aggregate([("rewards", "sum")])["rewards_sum"]
returns = returns.to_numpy()
print(f"{table.num_rows:,} steps in {len(returns)} episodes")
print(f"return: mean {returns.mean():.1f}, best {returns.max():.0f}")
for low in range(0, 100, 20):
    count = int(((returns >= low) & (returns < low + 20)).sum())
    print(f"    {low:2d} to {low + 19:2d}   {count:3d} {'#' * (count // 10)}")

observations = np.array(table["obs"].to_pylist())
actions = table["actions"].to_numpy()
print("from the smallest to the largest value of each observation:")
for index, name in enumerate(["position", "velocity", "angle", "angular velocity"]):
    column = observations[:, index]
    print(f"    {name:17s} {column.min():5.2f} to {column.max():5.2f}")

print("how often it pushed        left   right")
for name, leans in [
    ("left", observations[:, 2] < 0),
    ("right", observations[:, 2] > 0),
]:
    left, right = (int((actions[leans] == action).sum()) for action in (0, 1))
    print(f"    the pole leans {name:5s}  {left:6,d}  {right:6,d}")
    if min(left, right) < 1000:
        sys.exit("Both actions should be tried often, whichever way the pole leans.")
if not 20 < returns.mean() < 60:
    sys.exit("This behaviour should be mediocre: a mean return of about 35.")
