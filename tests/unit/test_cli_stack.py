"""The servers of the demo: their ports, and that they go with the process that started them."""

from __future__ import annotations

import subprocess
import sys

PORTS = """
import sys
from pathlib import Path
from airflow_provider_mlops.cli.stack import Stack
stacks = [Stack(Path("never-made")) for _ in range(100)]
print(*(stack.mlflow_url.rpartition(":")[2] for stack in stacks), *(stack.airflow_url.rpartition(":")[2] for stack in stacks))
sys.stdout.flush()
sys.stdin.read()
"""


def test_stacks_that_choose_their_ports_at_the_same_moment_choose_different_ones():
    choosers = [
        subprocess.Popen([sys.executable, "-c", PORTS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    chosen = [port for chooser in choosers for port in chooser.stdout.readline().split()]  # 800 of some 28,000
    for chooser in choosers:
        chooser.communicate()
    assert len(chosen) == 4 * 200
    assert len(set(chosen)) == len(chosen)
