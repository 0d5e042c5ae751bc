"""Train on the frozen rows and log one model. A plain script: it knows MLflow and nothing of Airflow."""

import os

import mlflow
import pandas as pd
from mlflow.models import infer_signature
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

label = os.environ["MLOPS_LABEL"]
rows = pd.read_parquet(os.environ["MLOPS_DATA_URI"])
features = rows.drop(columns=label)

with mlflow.start_run():
    model = make_pipeline(StandardScaler(), LogisticRegression(random_state=int(os.environ["MLOPS_SEED"])))
    model.fit(features, rows[label])
    mlflow.sklearn.log_model(
        model,
        name="model",
        signature=infer_signature(features, model.predict_proba(features)),
        pyfunc_predict_fn="predict_proba",
    )
