# /// script
# dependencies = ["evidently", "pandas<3", "pyarrow"]  # Evidently 0.7 cannot be imported with pandas 3
# ///
"""Evidently's drift preset with its defaults: python evidently.py REFERENCE CURRENT."""

import os
import sys

os.environ["DO_NOT_TRACK"] = "1"
sys.path.pop(0)  # this folder holds files named like the packages

import pandas as pd
from evidently import Report
from evidently.presets import DataDriftPreset

reference, current = (pd.read_parquet(path) for path in sys.argv[1:3])
print(len(Report([DataDriftPreset()]).run(current, reference).json()))
