"""The profile's section `federation`: participation, attacks, defence and privacy."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from pilot.config.base import CompactModel, Model

Probability = Annotated[float, Field(ge=0, le=1)]
PositiveShare = Annotated[float, Field(gt=0, le=1)]
PositiveNumber = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class ClockConfig(Model):
    """A virtual clock; see `pilot.federation.virtual_clock`. Times are in optimiser steps of a client of speed 1.

    Attributes:
        speeds: steps per unit of time, cycled over client ids.
        delays: bounds of the time that a session's messages take.
        seed: seed of the delays; the run's own seed does not change them.
    """

    speeds: tuple[PositiveNumber, ...] = Field(default=(1.0,), min_length=1)
    delays: tuple[NonNegative, NonNegative] = (0.0, 0.0)
    seed: int = 0

    @model_validator(mode="after")
    def _ascending(self) -> "ClockConfig":
        if self.delays[0] > self.delays[1]:
            raise ValueError(f"delays: expected the smaller bound first, got {list(self.delays)}")
        return self


class ParticipationConfig(CompactModel):
    """Participation of clients in rounds, simulated by a seeded schedule; see `pilot.federation.participation`.

    By default, every client is present in every round.

    Attributes:
        fraction: share of the clients that a round wants.
        over_selection: share of clients selected in addition, to make up for dropouts.
        quorum: smallest number of accepted updates with which a round changes anything.
        deadline: time at which the round stops waiting; None waits for all. Above 1, or every client would be late.
        dropout: probability that a selected client sends nothing.
        stragglers: probability that a client is slow in a round.
        slowdown: time of a slow client.
        clock: a virtual clock, which replaces stragglers; None for none.
    """

    omitted_defaults: ClassVar[frozenset[str]] = frozenset({"clock"})

    fraction: PositiveShare = 1.0
    over_selection: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    quorum: Annotated[int, Field(ge=1, strict=True)] = 1
    deadline: Annotated[float, Field(gt=1, allow_inf_nan=False)] | None = None
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    stragglers: Probability = 0.0
    slowdown: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 4.0
    clock: ClockConfig | None = None

    @model_validator(mode="after")
    def _one_source_of_times(self) -> "ParticipationConfig":
        if self.clock is not None and self.stragglers:
            raise ValueError("clock: expected no stragglers beside it: their times come from speeds and delays")
        return self


class AttackConfig(Model):
    """A simulated fault of some clients; see `pilot.federation.attacks`."""

    kind: Literal["nan", "sign_flip", "scale", "free_rider"]
    clients: tuple[Annotated[int, Field(ge=0)], ...] = Field(min_length=1)
    factor: PositiveNumber = 10.0


class DefenceConfig(Model):
    """The server's defence against wrong updates; see `pilot.federation.defence`.

    Attributes:
        aggregation: `multi_krum` selects updates, then takes the weighted mean as usual.
        trim: share that the trimmed mean cuts from each end.
        num_byzantine: f of multi-Krum; it keeps K - f updates.
        clip_norm: largest L2 norm of the difference between an update and the values received; None for no bound.
    """

    aggregation: Literal["mean", "median", "trimmed_mean", "multi_krum"] = "mean"
    trim: Annotated[float, Field(ge=0, lt=0.5)] = 0.1
    num_byzantine: Annotated[int, Field(ge=0)] = 1
    clip_norm: PositiveNumber | None = None


class PrivacyConfig(Model):
    """Client-level differential privacy of each update; see `pilot.federation.privacy`."""

    clip_norm: PositiveNumber
    noise_multiplier: PositiveNumber
    delta: Annotated[float, Field(gt=0, lt=1)] = 1e-5
    noise: Literal["seeded", "system"] = "seeded"


class FederationConfig(Model):
    """All settings of the section. Default: full participation, no attack, plain mean, no privacy."""

    participation: ParticipationConfig = ParticipationConfig()
    attacks: tuple[AttackConfig, ...] = ()
    defence: DefenceConfig = DefenceConfig()
    privacy: PrivacyConfig | None = None

    @model_validator(mode="after")
    def _one_fault_each(self) -> "FederationConfig":
        clients = [client for attack in self.attacks for client in attack.clients]
        if len(set(clients)) != len(clients):
            raise ValueError(f"attacks: expected at most one fault per client, got clients {clients}")
        return self
