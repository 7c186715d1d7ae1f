"""lm-eval's own command line, with the model `pilot` known to it.

The released lm-eval (0.4.13) looks models up in its own source tree and offers no hook for others, so the package
installs a command `lm_eval` that registers ours and then hands over everything to lm-eval.
"""

from lm_eval.__main__ import cli_evaluate
from lm_eval.api.registry import model_registry

MODEL = "pilot"


def main() -> None:
    """`lm_eval`, as lm-eval has it; the model's code is imported when somebody asks for it."""
    if MODEL not in model_registry:
        model_registry.register(MODEL, target="pilot.evaluation.lm:PilotLM")
    cli_evaluate()
