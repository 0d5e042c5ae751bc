"""Train the rain model. A plain script: it knows MLflow and nothing of Airflow."""

import json
import os

import mlflow
import pandas as pd
from mlflow.models import infer_signature
from sklearn.ensemble import HistGradientBoostingClassifier

label = os.environ["MLOPS_LABEL"]
rows = pd.read_parquet(os.environ["MLOPS_DATA_URI"])
features = rows.drop(columns=[label, os.environ["MLOPS_TIMESTAMP"]])
hyperparameters = json.loads(os.environ["MLOPS_HYPERPARAMETERS"])

with mlflow.start_run():
    model = HistGradientBoostingClassifier(random_state=int(os.environ["MLOPS_SEED"]), **hyperparameters)
    model.fit(features, rows[label])
    mlflow.log_metric("training_accuracy", model.score(features, rows[label]))
    mlflow.sklearn.log_model(
        model,
        name="model",
        signature=infer_signature(features, model.predict_proba(features)),
        pyfunc_predict_fn="predict_proba",  # serve the chance of rain, not a hard yes or no
        pip_requirements=["scikit-learn", "pandas"],
        skops_trusted_types=["sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor"],
    )
print(f"Trained on {len(rows)} days with {hyperparameters}")
