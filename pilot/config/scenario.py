"""What a scenario is: its tasks, where their data come from, how they are split over clients, and the methods."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from pilot.config.base import Count, Model, Positive, Sparse

Kind = Literal["vqa", "caption", "ground"]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")]
VariantName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")]
FullName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*(\+[a-z0-9][a-z0-9._-]*)?$")]
"""A name, or a name with its variant: `scenario2+alpha-0.1`."""
Seed = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, lt=0.5)]


class PartitionConfig(Model):
    """How a task's training examples are split over its clients.

    `attribute` names the label (a key of the records' attributes) that a Dirichlet split skews by `alpha`
    (smaller is more uneven), and by which the heterogeneity report counts.
    """

    kind: Literal["iid", "dirichlet"]
    attribute: str | None = None
    alpha: Positive | None = None

    @model_validator(mode="after")
    def _complete(self) -> "PartitionConfig":
        if self.kind == "dirichlet" and (self.alpha is None or not self.attribute):
            raise ValueError("kind dirichlet needs the fields attribute and alpha")
        if self.kind == "iid" and self.alpha is not None:
            raise ValueError("kind iid takes no alpha")
        return self


class TaskConfig(Sparse):
    """One task of a scenario: its data source, sizes, clients and lm-eval task.

    `options` are those of a source that reads files, and `held_out`; paths in them are relative to the folder that the
    variable `PILOT_DATASETS` names. `max_quarantine` is the largest share of unusable rows with which data are built.
    Both are left out of a dump where they have their defaults, so that they change no digest there.
    """

    unwritten: ClassVar[frozenset[str]] = frozenset({"options", "max_quarantine"})

    name: Name
    kind: Kind
    source: str
    num_train: Count
    num_test: Count
    num_clients: Count = 3
    partition: PartitionConfig
    lm_eval_task: str
    options: Mapping[str, Any] = Field(default_factory=dict)
    max_quarantine: Annotated[float, Field(ge=0, le=1)] = 0.01


class Scenario(Model):
    """Which tasks are federated, over which clients, by which methods."""

    name: FullName
    title: str
    data_seed: Seed
    partition_seed: Seed
    methods: tuple[FullName, ...] = Field(min_length=1)
    seeds: tuple[Seed, ...] = Field(min_length=1)
    tasks: tuple[TaskConfig, ...] = Field(min_length=1)
    validation_fraction: Share
    local_test_fraction: Share
    min_client_examples: Count

    @model_validator(mode="after")
    def _distinct(self) -> "Scenario":
        named = {
            "methods": self.methods,
            "seeds": self.seeds,
            "tasks": tuple(task.name for task in self.tasks),
        }
        for field, values in named.items():
            if len(set(values)) != len(values):
                raise ValueError(f"{field} must be distinct, got {list(values)}")
        return self

    @property
    def client_tasks(self) -> tuple[TaskConfig, ...]:
        """The task of every client, by client id (clients are ordered by task)."""
        return tuple(task for task in self.tasks for _ in range(task.num_clients))

    def clients_of(self, task_name: str) -> tuple[int, ...]:
        """The clients of a task, ascending."""
        return tuple(client for client, task in enumerate(self.client_tasks) if task.name == task_name)
