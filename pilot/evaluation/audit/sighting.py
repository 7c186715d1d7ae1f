"""What the server sees of one client in one phase, with the values from which the client started."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pilot.backbone.backbone import Backbone
from pilot.federation.assemble import make_plan
from pilot.federation.kept_messages import Message
from pilot.federation.spec import RunSpec
from pilot.methods.base import ClientInfo, Method, Phase, State


@dataclass(frozen=True)
class Sighting:
    """A message and what the server knows about it.

    Attributes:
        info: client, its task and the run's seed, all of which the protocol names.
        phase: the method's phase.
        setting: name of the step or round.
        payload: tensors that the server sent.
        start: what the client would have sent without training, as far as the server knows.
        sent: what it sent.
        known: newest value of every tensor that passed between the two up to this message.
        round_number: the round, 0 for a single step.
    """

    info: ClientInfo
    phase: Phase
    setting: str
    payload: State
    start: State
    sent: State
    known: State
    round_number: int = 0

    @property
    def update(self) -> State:
        """The change of every tensor; tensors without a known start count from zero."""
        return {name: value - self.start[name] if name in self.start else value for name, value in self.sent.items()}


def sightings_of(
    spec: RunSpec, backbone: Backbone, messages: Sequence[Message], num_examples: Mapping[int, int]
) -> list[Sighting]:
    """Return a sighting for each kept message, in their order."""
    method = spec.make_method()
    plan = make_plan(spec, method, backbone, num_examples)
    infos = {info.client: info for info in plan.clients}
    known: dict[int, State] = {}
    found = []
    for message in messages:
        info, phase = infos[message.update.client], _phase_of(method, message)
        seen = known.setdefault(info.client, {})
        seen |= message.payload | message.update.state
        several = len([each for each in method.phases(message.round_number) if each.shared]) > 1
        setting = f"round {message.round_number}" + (f", {phase.name}" if several else "")
        start = plan.template(phase, info, message.payload)
        found.append(
            Sighting(
                info, phase, setting, message.payload, start, message.update.state, dict(seen), message.round_number
            )
        )
    return found


def _phase_of(method: Method, message: Message) -> Phase:
    """Return the phase of a message, whose name is the phase's."""
    phases = (*method.phases(message.round_number), *method.newcomer_phases(message.round_number))
    return next(each for each in phases if each.name == message.phase and each.shared)
