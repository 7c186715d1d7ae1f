"""lm-eval's command line with the model `pilot` registered.

The released lm-eval (0.4.13) looks models up in its source tree only and has no hook for others. So this package
installs a command `lm_eval` that registers the model and then passes everything on to lm-eval.
"""

from lm_eval.__main__ import cli_evaluate
from lm_eval.api.registry import model_registry

MODEL = "pilot"


def main() -> None:
    """Register the model and run lm-eval's command line; the model's code is imported on first use."""
    if MODEL not in model_registry:
        model_registry.register(MODEL, target="pilot.evaluation.lm:PilotLM")
    cli_evaluate()
