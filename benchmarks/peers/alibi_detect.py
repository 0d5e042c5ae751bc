# /// script
# dependencies = ["alibi-detect", "pandas<3", "pyarrow<21"]  # alibi-detect 0.12 needs numpy 1
# ///
"""alibi-detect's TabularDrift with its defaults, texts coded by us: python alibi_detect.py REFERENCE CURRENT."""

import sys

sys.path.pop(0)  # this folder holds files named like the packages

import numpy as np
import pandas as pd
from alibi_detect.cd import TabularDrift

reference, current = (pd.read_parquet(path) for path in sys.argv[1:3])
categories = {}
for index, name in enumerate(reference.columns):
    if reference[name].dtype == object:
        codes, _ = pd.factorize(pd.concat([reference[name], current[name]]))
        reference[name], current[name] = codes[: len(reference)], codes[len(reference) :]
        categories[index] = None
    else:  # it takes no missing values
        middle = reference[name].mean()
        reference[name], current[name] = reference[name].fillna(middle), current[name].fillna(middle)
detector = TabularDrift(reference.to_numpy(np.float32), categories_per_feature=categories)
print(detector.predict(current.to_numpy(np.float32))["data"]["is_drift"])
