"""Encodes Parquet files on a Ray cluster, or on this machine if there is none.

    python examples/ray_encode.py INPUT OUTPUT --model PRESET [--text-column NAME] [--actors 2] [--cpus 4 | --gpus 1]

INPUT is a file or a folder, and OUTPUT a folder that does not exist. The rows get the columns `embedding` and `error`.
Every node needs `pip install 'electra-serve[openvino,ray]'`, or `[jax,ray]` for GPUs.
"""

from __future__ import annotations

import argparse

import ray.data

from electra_serve.bulk.ray import Encoder


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("input", metavar="INPUT")
    parser.add_argument("output", metavar="OUTPUT")
    parser.add_argument("--model", required=True, metavar="PRESET")
    parser.add_argument("--text-column", default="text", metavar="NAME")
    parser.add_argument("--actors", type=int, default=2, help="copies of the model (default: %(default)s)")
    parser.add_argument("--cpus", type=int, default=1, help="of each actor (default: %(default)s)")
    parser.add_argument("--gpus", type=int, default=0, help="of each actor (default: %(default)s)")
    flags = parser.parse_args()

    encoded = ray.data.read_parquet(flags.input).map_batches(
        Encoder,
        fn_constructor_kwargs={"model": flags.model, "text_column": flags.text_column, "truncate": True},
        batch_format="pyarrow",  # keeps the types of columns, and nulls
        batch_size=4096,  # rows of different lengths, which the encoder sorts into batches of its own
        compute=ray.data.ActorPoolStrategy(size=flags.actors),
        num_cpus=flags.cpus,
        num_gpus=flags.gpus,
    )
    encoded.write_parquet(flags.output, mode=ray.data.SaveMode.ERROR)


if __name__ == "__main__":
    main()
