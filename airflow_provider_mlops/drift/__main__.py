"""``python -m airflow_provider_mlops.drift REFERENCE CURRENT``: the same command as ``mlops drift``."""

from __future__ import annotations

import sys
from importlib import import_module

if __name__ == "__main__":
    # By name, since this file is a door into the room from outside and nothing in the room may import what is above.
    command = import_module("airflow_provider_mlops.cli.drift")
    sys.exit(command.main(sys.argv[1:], prog="python -m airflow_provider_mlops.drift"))
