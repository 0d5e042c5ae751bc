# /// script
# dependencies = ["scipy", "pandas", "pyarrow"]
# ///
"""What a team writes first, one scipy.stats test per column: python scipy_loop.py REFERENCE CURRENT."""

import sys

import pandas as pd
from scipy import stats

reference, current = (pd.read_parquet(path) for path in sys.argv[1:3])
drifted = []
for name in reference.columns:
    before, now = reference[name].dropna(), current[name].dropna()
    if pd.api.types.is_numeric_dtype(before):
        p = stats.ks_2samp(before, now).pvalue
    else:
        counts = pd.concat([before.value_counts(), now.value_counts()], axis=1).fillna(0)
        p = stats.chi2_contingency(counts.to_numpy().T).pvalue
    if p < 0.05:
        drifted.append(name)
print(drifted)
