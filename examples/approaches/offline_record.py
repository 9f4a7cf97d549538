"""What RLlib's own recorder writes, compared with what it sampled."""

import logging
import os
import sys
import tempfile

import pyarrow.parquet as parquet
import ray
import ray.data
import torch
from ray.rllib.algorithms.ppo import PPOConfig

SEED = int(os.environ.get("SEED", 0))

torch.set_num_threads(1)  # so small a network is slower with more threads
for name in ("ray.rllib", "ray.data"):
    logging.getLogger(name).setLevel(logging.ERROR)  # no banners, no progress reports
ray.data.DataContext.get_current().enable_progress_bars = False
ray.init("local", include_dashboard=False, log_to_driver=False, logging_level="error")

found = []
for calls, max_rows in [(1, None), (3, None), (3, 50), (3, 1000)]:
    with tempfile.TemporaryDirectory() as folder:
        config = (
            PPOConfig()
            .environment("CartPole-v1")
            .env_runners(num_env_runners=0)
            .offline_data(
                output=folder,
                output_write_episodes=False,  # a row per step, in columns
                output_compress_columns=[],  # plain numbers, that anyone can read
                output_max_rows_per_file=max_rows,
                output_write_remaining_data=max_rows is not None,  # in algo.stop()
            )
            .debugging(seed=SEED, log_level="ERROR")
        )
        algo = config.build_algo()
        steps = 0
        for _ in range(calls):
            steps += sum(len(part) for part in algo.env_runner.sample(num_episodes=5))
        algo.stop()
        files = len([file for *_, files in os.walk(folder) for file in files])
        table = parquet.read_table(folder)
    found.append((steps, table.num_rows))
    print(f"{calls} calls of sample(), output_max_rows_per_file={max_rows}:")
    print(f"    {steps} steps sampled, {table.num_rows} rows in {files} files")
ray.shutdown()
print("columns:", ", ".join(table.schema.names))

(steps_1, rows_1), (steps_3, rows_3), (steps_cut, rows_cut), (steps_fit, rows_fit) = (
    found
)
if rows_1 != steps_1:
    sys.exit("One call should write each step once.")
if not rows_3 > steps_3:
    sys.exit("Later calls should write the steps of earlier calls again.")
if not rows_cut < steps_cut:
    sys.exit("With so small a limit on rows, steps should be missing.")
if rows_fit != steps_fit:
    sys.exit("With a limit that is large enough, each step should be written once.")
