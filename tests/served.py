"""Tiny real models on disk, for servers to serve. Both add two columns, ``x`` and ``y``."""

from __future__ import annotations

import warnings
from contextlib import contextmanager


@contextmanager
def quiet():
    """MLflow advises, by warnings, on type hints and input examples; 3.11 also makes a database to log traces to."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import mlflow

        mlflow.tracing.disable()
        yield


def _signature():
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema

    return ModelSignature(
        inputs=Schema([ColSpec("double", "x"), ColSpec("double", "y")]), outputs=Schema([ColSpec("double")])
    )


def save_sklearn(folder):
    """Save a linear model of scikit-learn."""
    with quiet():
        import mlflow
        import pandas as pd
        from sklearn.linear_model import LinearRegression

        frame = pd.DataFrame({"x": [0.0, 1.0, 2.0, 3.0], "y": [1.0, 0.0, 5.0, 2.0]})
        model = LinearRegression().fit(frame, frame["x"] + frame["y"])
        mlflow.sklearn.save_model(
            model, folder, signature=_signature(), pip_requirements=["scikit-learn"], serialization_format="pickle"
        )
    return folder


def save_python(folder, *, fails="False", seconds="0", answer="(data['x'] + data['y']).to_numpy()", signature=True):
    """
    Save a model of Python code; the arguments are expressions over the frame ``data``.

    The code is a file of the model's, so a server needs nothing of these tests.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    code = folder.parent / f"{folder.name}_code.py"
    code.write_text(
        "import os, time\n"
        "import mlflow\n"
        "import pandas as pd\n"
        "from mlflow.pyfunc import PythonModel\n\n"
        "class Model(PythonModel):\n"
        "    def predict(self, context, model_input: pd.DataFrame, params=None):\n"
        "        data = model_input\n"
        f"        time.sleep({seconds})\n"
        f"        if {fails}:\n"
        "            raise ArithmeticError('this model is broken')\n"
        f"        return {answer}\n\n"
        "mlflow.models.set_model(Model())\n"
    )
    with quiet():
        import mlflow

        mlflow.pyfunc.save_model(
            folder,
            python_model=str(code),
            signature=_signature() if signature else None,
            pip_requirements=["mlflow"],
        )
    return folder
