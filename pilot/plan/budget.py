"""Equal compute: the local steps with which a method's run costs as much as FedAvg's, by the plan's arithmetic."""

from pilot.config.profile import Profile
from pilot.config.scenario import Scenario
from pilot.errors import UserError
from pilot.federation.rounds import min_local_steps
from pilot.federation.spec import RunSpec
from pilot.plan.architecture import architecture_of
from pilot.plan.plan import PlanInputs, plan_run
from pilot.plan.work import estimate_work

MEASURE = "fedavg"
TEXT_TOKENS, ANSWER_TOKENS = 128, 32
"""Tokens of a prompt with its answer, and of the answer: the defaults of `pilot-bench plan`."""


def with_equal_flops(scenario: Scenario, profile: Profile, method: str) -> Profile:
    """Return the profile with the local steps that FedAvg's FLOPs buy for `method`; unchanged if nothing is trained.

    They are the most steps per client and round whose run takes no more floating-point operations than FedAvg's with
    the profile's own `local_steps`.

    Raises:
        UserError: the method cannot be planned, or the operations do not buy a step of every phase.
    """
    phases = RunSpec(scenario, profile, method, 0).make_method().phases(1)
    if not phases:
        return profile
    allowed = run_flops(scenario, profile, MEASURE)
    enough = steps = min_local_steps(phases)
    if run_flops(scenario, _with_steps(profile, enough), method) > allowed:
        raise UserError(
            f"profile {profile.name}: field budget: the operations of {MEASURE}'s {profile.local_steps} local steps do "
            f"not buy the {enough} that method {method} needs. Increase local_steps."
        )
    above = steps * 2
    while run_flops(scenario, _with_steps(profile, above), method) <= allowed:
        steps, above = above, above * 2
    while above - steps > 1:
        middle = (steps + above) // 2
        if run_flops(scenario, _with_steps(profile, middle), method) <= allowed:
            steps = middle
        else:
            above = middle
    return _with_steps(profile, steps)


def run_flops(scenario: Scenario, profile: Profile, method: str) -> int:
    """Return the floating-point operations of a run, as `pilot-bench plan` estimates them.

    Raises:
        UserError: there is no plan for the method or the backbone.
    """
    architecture = architecture_of(profile)
    inputs = PlanInputs(scenario, profile, [method], 1, 0, TEXT_TOKENS, ANSWER_TOKENS, None)
    planned = plan_run(RunSpec(scenario, profile, method, 0), architecture)
    return estimate_work(architecture, inputs.settings(profile, architecture), planned, profile, scenario).flops


def _with_steps(profile: Profile, steps: int) -> Profile:
    return profile.model_copy(update={"local_steps": steps})
