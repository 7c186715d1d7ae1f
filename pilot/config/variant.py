"""The variants of `pipelines/variants/`: a base and one named patch of it, written `base+variant`.

`pilot+no-ata` is the method `pilot` with other options, `scenario2+alpha-0.1` the scenario with another partition,
`embedded+rounds-3` the profile with another number of rounds. The result has the full name.
"""

import re
from collections.abc import Collection, Mapping
from typing import Any, Literal

from pydantic import Field, model_validator

from pilot.config.base import Count, Model, Positive
from pilot.config.federation import ClockConfig, PrivacyConfig
from pilot.config.files import check_known, known_names, load_file
from pilot.config.scenario import MissingConfig, Name, UnseenConfig, VariantName
from pilot.errors import UserError

VariantKind = Literal["method", "scenario", "profile"]
"""Kind of object that a variant patches."""

_NAME = re.compile(r"(.+?\.ya?ml|[^+]*)(?:\+(.+))?", re.DOTALL)


def split_name(name: str) -> tuple[str, str | None]:
    """Split a name into base and variant (None without one). A path keeps every `+` before its `.yaml`.

    Raises:
        UserError: nothing follows the `+`.
    """
    match = _NAME.fullmatch(name)
    if match is None:
        raise UserError(f"{name}: expected a variant's name after '+'. Add one, or remove the '+'.")
    return match[1], match[2]


def base_name(name: str) -> str:
    """Return the name without its variant."""
    return split_name(name)[0]


class _Patch(Model):
    """Base of the patches: fields that are not set change nothing; at least one must be set."""

    @model_validator(mode="after")
    def _not_empty(self) -> "_Patch":
        if all(value is None for _, value in self):
            raise ValueError(f"expected at least one of: {', '.join(type(self).model_fields)}")
        return self


class ScenarioPatch(_Patch):
    """Another split over clients: `alpha` of every Dirichlet partition, `kind` and `num_clients` of every task.

    `unseen` keeps clients and questions out of training; `missing` takes pictures or texts from training records;
    `canaries` plants rare answers in them; `cross_task` and `post_fit` turn these evaluations on or off.
    """

    kind: Literal["iid"] | None = None
    alpha: Positive | None = None
    num_clients: Count | None = None
    min_client_examples: Count | None = None
    unseen: UnseenConfig | None = None
    missing: MissingConfig | None = None
    canaries: Count | None = None
    cross_task: bool | None = None
    post_fit: bool | None = None

    @model_validator(mode="after")
    def _one_split(self) -> "ScenarioPatch":
        if self.kind and self.alpha:
            raise ValueError("kind iid: expected no alpha")
        return self

    def apply_to(self, scenario: Mapping[str, Any]) -> dict[str, Any]:
        """Apply the patch to the dump of a scenario.

        Raises:
            UserError: `alpha` is set, but no task has a Dirichlet partition.
        """
        if self.alpha and all(task["partition"]["kind"] != "dirichlet" for task in scenario["tasks"]):
            raise UserError(
                f"scenario {scenario['name']}: no task has a Dirichlet partition, so alpha would change nothing."
            )
        changes: dict[str, Any] = {"tasks": [self._task(task) for task in scenario["tasks"]]}
        if self.min_client_examples:
            changes |= {"min_client_examples": self.min_client_examples}
        if self.unseen:
            changes |= {"unseen": self.unseen.model_dump(mode="json")}
        if self.missing:
            changes |= {"missing": self.missing.model_dump(mode="json")}
        named = self.model_dump(include={"canaries", "cross_task", "post_fit"}, exclude_none=True)
        return {**scenario, **changes, **named}

    def _task(self, task: Mapping[str, Any]) -> dict[str, Any]:
        partition = dict(task["partition"])
        if self.kind == "iid":
            partition |= {"kind": "iid", "alpha": None}
        elif self.alpha and partition["kind"] == "dirichlet":
            partition |= {"alpha": self.alpha}
        clients = {"num_clients": self.num_clients} if self.num_clients else {}
        return {**task, **clients, "partition": partition}


class ProfilePatch(_Patch):
    """Another training budget (`rounds`, `local_steps`, `budget`), a virtual clock, or what an audit needs.

    An audit needs kept messages and, for its trade, noise (`privacy`). With `keep_messages`, runs have no evaluations
    before the last round, and none of `forgetting`.
    """

    rounds: Count | None = None
    local_steps: Count | None = None
    budget: Literal["steps", "flops"] | None = None
    clock: ClockConfig | None = None
    keep_messages: tuple[Count | Literal["last"], ...] | None = None
    privacy: PrivacyConfig | None = None

    def apply_to(self, profile: Mapping[str, Any]) -> dict[str, Any]:
        """Apply the patch to the dump of a profile."""
        result = {**profile, **self.model_dump(exclude_none=True, exclude={"clock", "privacy"})}
        if self.keep_messages is not None:
            result |= {"evaluate_every": None, "forgetting": ()}
        if self.privacy is not None:
            result["federation"] = {**profile["federation"], "privacy": self.privacy.model_dump()}
        if self.clock is not None:
            participation = {**profile["federation"]["participation"], "clock": self.clock.model_dump()}
            result["federation"] = {**result["federation"], "participation": participation}
        return result


class Variant(Model):
    """A patch of a method's options, of a scenario or of a profile; `title` describes the change in one line."""

    name: VariantName
    title: str
    method: Name | None = None
    options: Mapping[str, Any] = Field(default_factory=dict)
    scenario: ScenarioPatch | None = None
    profile: ProfilePatch | None = None

    @model_validator(mode="after")
    def _patches_one_object(self) -> "Variant":
        if sum(value is not None for value in (self.method, self.scenario, self.profile)) != 1:
            raise ValueError("method, scenario, profile: expected exactly one of the three")
        if (self.method is None) != (not self.options):
            raise ValueError("method and options: expected both or neither")
        return self

    def applies_to(self, kind: VariantKind, base: str) -> bool:
        """Check whether the variant is of this kind and, if it is a method's, of this base."""
        return getattr(self, kind) is not None and (kind != "method" or self.method == base)


def load_variant(kind: VariantKind, name: str) -> Variant | None:
    """Load the variant that a name ends with; return None without one.

    Raises:
        UserError: no such variant of this kind and method, or its file is invalid.
    """
    base, wanted = split_name(name)
    if wanted is None:
        return None
    names = known_names("variants")
    if wanted in names and (found := load_file(Variant, "variants", wanted)).applies_to(kind, base):
        return found
    of = f"method {base}" if kind == "method" else f"a {kind}"
    fitting = [each for each in names if load_file(Variant, "variants", each).applies_to(kind, base)]
    expected = f"Expected one of: {', '.join(fitting)}." if fitting else f"No variants of {of} exist."
    raise UserError(f"{kind} {name}: {wanted!r} is not a variant of {of}. {expected} See pipelines/variants.")


def check_methods(where: str, field: str, names: Collection[str], known: Collection[str]) -> None:
    """Check method names with `check_known`; accept variants of known methods.

    Raises:
        UserError: a method or variant is unknown.
    """
    check_known(where, field, [base_name(name) for name in names], known)
    for name in names:
        load_variant("method", name)
