# /// script
# dependencies = ["nannyml", "statsmodels", "pandas<3", "pyarrow"]  # NannyML 0.13 needs statsmodels and does not say so
# ///
"""NannyML's univariate drift with its defaults, the window as one chunk: python nannyml.py REFERENCE CURRENT."""

import os
import sys

os.environ["NML_DISABLE_USAGE_LOGGING"] = "1"
sys.path.pop(0)  # this folder holds files named like the packages

import nannyml as nml
import pandas as pd

reference, current = (pd.read_parquet(path) for path in sys.argv[1:3])
calculator = nml.UnivariateDriftCalculator(column_names=list(reference.columns), chunk_number=1)
print(len(calculator.fit(reference).calculate(current).to_df()))
