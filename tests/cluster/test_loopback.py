"""What we start listens on 127.0.0.1 only."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

SCRIPT = """
import os, shutil, tempfile
from pathlib import Path
from cluster.loopback import stay_on_loopback
assert stay_on_loopback()
import ray
from cluster.ray_session import local_ray_options

def own(pid):
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return {pid} | {p for child in children for p in own(int(child))}

def listening():
    inodes = set()
    for pid in own(os.getpid()):
        for fd in Path(f"/proc/{pid}/fd").iterdir():
            try:
                inodes.add(os.readlink(fd))
            except FileNotFoundError:
                continue
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in inodes:
                yield fields[1].rpartition(":")[0]

folder = tempfile.mkdtemp(prefix="millrace-ray-")
ray.init(logging_level=40, **local_ray_options(2, folder))
actor = ray.remote(type("Plain", (), {"pid": lambda self: os.getpid()})).remote()
ray.get(actor.pid.remote())
addresses = sorted(listening())
ray.shutdown()
shutil.rmtree(folder, ignore_errors=True)
print(len(addresses), *sorted(set(addresses)))
"""

LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}


@pytest.mark.cluster
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.timeout(120)
def test_no_socket_of_a_local_ray_is_open_to_the_network() -> None:
    """All listening sockets of Ray's processes are bound to 127.0.0.1: whoever reaches them could run code as us."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=ROOT, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    count, *addresses = done.stdout.split()
    assert int(count) >= 5, "the check saw too few sockets to mean anything"
    assert set(addresses) <= LOOPBACK
