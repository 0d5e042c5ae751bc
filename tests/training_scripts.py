"""Small training scripts, and rows that they can learn from."""

from __future__ import annotations

import datetime as dt

import numpy as np
import pyarrow as pa
from pyarrow import parquet

GOOD = '''\
"""Train a small model and log it."""
import json, os

import mlflow, pandas as pd
from mlflow.models import infer_signature
from sklearn.linear_model import LogisticRegression

rows = pd.read_parquet(os.environ["MLOPS_DATA_URI"])
label = os.environ["MLOPS_LABEL"]
features = rows[["a", "b"]]
with mlflow.start_run():
    model = LogisticRegression(**json.loads(os.environ["MLOPS_HYPERPARAMETERS"])).fit(features, rows[label])
    mlflow.log_metric("accuracy", model.score(features, rows[label]))
    mlflow.sklearn.log_model(
        model,
        name="model",
        signature=infer_signature(features, model.predict_proba(features)),
        pyfunc_predict_fn="predict_proba",
        pip_requirements=["scikit-learn"],
        skops_trusted_types=[],
    )
print("trained on", len(rows), "rows")
'''

_LOG = """\
    mlflow.sklearn.log_model(
        model,
        name="model",
        signature=infer_signature(features, model.predict_proba(features)),
        pyfunc_predict_fn="predict_proba",
        pip_requirements=["scikit-learn"],
        skops_trusted_types=[],
    )
"""
assert _LOG in GOOD
UNSIGNED = GOOD.replace("        signature=infer_signature(features, model.predict_proba(features)),\n", "")
TWO = GOOD.replace(_LOG, _LOG + _LOG.replace('name="model"', 'name="spare"'))


def rows(file, count=400, seed=0, **columns):
    """Write *count* daily rows in which ``a`` tells the label ``y``; return the folder."""
    random = np.random.default_rng(seed)
    a, b = random.normal(0, 1, count), random.normal(0, 1, count)
    table = {
        "at": [dt.datetime(2026, 1, 1, tzinfo=dt.UTC) + dt.timedelta(hours=hour) for hour in range(count)],
        "a": a,
        "b": b,
        "y": (a + random.normal(0, 0.3, count) > 0).astype(int),
        **columns,
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pa.table(table), file)
    return str(file.parent)
