"""``python -m airflow_provider_mlops.drift REFERENCE CURRENT``: the same command as ``mlops drift``."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import Any


class _WithoutPandas:  # a finder by its method: `importlib.abc` loads temporary files and compression
    """
    Lets pandas be absent from this process.

    pyarrow loads it wherever it is installed, for datasets and for arrays that are made of lists, which is a fifth of
    the time that a check of a million rows takes, and nothing here needs it.
    """

    def find_spec(self, fullname: str, *_: Any) -> None:
        """Say that pandas is not there; leave all else to the other finders."""
        if fullname == "pandas":
            raise ModuleNotFoundError("pandas is left out of this process.", name=fullname)


if __name__ == "__main__":
    sys.meta_path.insert(0, _WithoutPandas())
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # no algebra is done here, and idle BLAS threads spin
    # By name, since this file is a door into the room from outside and nothing in the room may import what is above.
    command = import_module("airflow_provider_mlops.cli.drift")
    sys.exit(command.main(sys.argv[1:], prog="python -m airflow_provider_mlops.drift"))
