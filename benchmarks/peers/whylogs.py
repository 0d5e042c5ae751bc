# /// script
# dependencies = ["whylogs[viz]", "pandas<3", "pyarrow"]
# ///
"""whylogs profiles and its drift scores, with its defaults: python whylogs.py REFERENCE CURRENT."""

import sys

sys.path.pop(0)  # this folder holds files named like the packages

import pandas as pd
import whylogs as why
from whylogs.viz.drift.column_drift_algorithms import calculate_drift_scores

reference, current = (why.log(pd.read_parquet(path)).view() for path in sys.argv[1:3])
print(len(calculate_drift_scores(target_view=current, reference_view=reference, with_thresholds=True)))
