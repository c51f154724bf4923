"""All measurements one after the other: `make bench`."""

from __future__ import annotations

import subprocess
import sys

for name in (
    "kernel",
    "pipeline",
    "shards",
    "merge",
    "scores",
    "quality",
    "population",
    "ratings",
    "recommend",
    "snapshots",
    "drift",
    "recovery",
    "deep",
    "scale",
    "gpu",
):
    print(f"\n## benchmarks/{name}.py\n", flush=True)
    subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], check=True)
