"""Prints how large images are: `image_sizes.py --base BASE IMAGE...`, uncompressed, in megabytes."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence

DOCKER = os.environ.get("DOCKER", "docker")


def main(arguments: Sequence[str] | None = None) -> int:
    """A line for each image; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", required=True)
    parser.add_argument("images", nargs="+")
    options = parser.parse_args(arguments)
    base = size(options.base)
    width = max(map(len, options.images))
    print(f"{'image':{width}}  {'size':>8}  {'above its base':>14}  {'our own code':>12}")
    for image in options.images:
        total = size(image)
        print(f"{image:{width}}  {megabytes(total):>8}  {megabytes(total - base):>14}  {last_layer(image):>12}")
    return 0


def size(image: str) -> int:
    """All layers of an image, in bytes."""
    return int(json.loads(asked("image", "inspect", image))[0]["Size"])


def last_layer(image: str) -> str:
    """The size of the last layer that has anything in it: what a change of our code costs."""
    layers = asked("history", "--format", "{{.Size}}", image).split()
    return next((layer for layer in layers if layer != "0B"), "0B")


def megabytes(number: int) -> str:
    """As `docker images` counts them: of a million bytes."""
    return f"{number / 1e6:,.0f} MB"


def asked(*arguments: str) -> str:
    """What docker answers."""
    done = subprocess.run([DOCKER, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{DOCKER} {' '.join(arguments[:2])}: {done.stderr.strip()}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
