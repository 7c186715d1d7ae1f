"""Typed model of a scenario file: tasks, data sources, split over clients, methods and seeds.

It checks the form alone: names of methods are checked in `pilot.runs.inputs`, sources and their options in
`pilot.data.build`, and the split in `pilot.data.partition`.
"""

import itertools
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from pilot.config.base import CompactModel, Count, Model, Positive

Kind = Literal["vqa", "caption", "ground"]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")]
VariantName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")]
Condition = Literal["colour-cast", "low-light", "blur", "low-resolution", "texture", "noise"]
"""An imaging condition; see `pilot.data.conditions`."""
FullName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*(\+[a-z0-9][a-z0-9._-]*)?$")]
"""A name, or a name with its variant: `scenario2+alpha-0.1`."""
Seed = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, lt=0.5)]
Fraction = Annotated[float, Field(ge=0, le=1)]


NOT_IN_DATA = ("title", "methods", "seeds", "cross_task", "post_fit", "targets")
"""Fields of a scenario that its data, their split over the clients and training do not depend on."""


class PartitionConfig(Model):
    """Split of a task's training examples over its clients.

    `attribute` is the label (a key of the records' attributes) that a Dirichlet split skews by `alpha` (smaller is more
    uneven), and by which the heterogeneity report counts.
    """

    kind: Literal["iid", "dirichlet"]
    attribute: str | None = None
    alpha: Positive | None = None

    @model_validator(mode="after")
    def _complete(self) -> "PartitionConfig":
        if self.kind == "dirichlet" and (self.alpha is None or not self.attribute):
            raise ValueError("kind dirichlet: expected the fields attribute and alpha")
        if self.kind == "iid" and self.alpha is not None:
            raise ValueError("kind iid: expected no alpha")
        return self


class TaskConfig(CompactModel):
    """One task of a scenario: its data source, sizes, clients and lm-eval task.

    `options` has the options of a source that reads files, and `held_out`; their paths are relative to the folder in
    the environment variable `PILOT_DATASETS`. `max_quarantine` is the largest share of unusable rows that is accepted
    when data are built. A dump omits both if they have their defaults, so that they change no digest.
    """

    omitted_defaults: ClassVar[frozenset[str]] = frozenset({"options", "max_quarantine"})

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


class UnseenQuestions(Model):
    """Questions that no client trains on: the records of a task whose `attribute` has a value."""

    task: Name
    attribute: str
    value: str


class UnseenConfig(CompactModel):
    """What takes no part in training: the last clients of every task, and a kind of questions.

    `steps` are the steps that an unseen client takes on its own data; by default as many as a client's round has.
    """

    omitted_defaults: ClassVar[frozenset[str]] = frozenset({"steps", "questions"})

    clients_per_task: Count = 1
    steps: Count | None = None
    questions: UnseenQuestions | None = None


class MissingConfig(Model):
    """Shares of clients' training records without a picture, and without a text beyond the task's prompt.

    A share is that of all clients, or one for each of a task's clients in order, after the last again from the first.
    What is there instead is in `pilot.data.missing`.
    """

    image: Fraction | tuple[Fraction, ...] = 0.0
    text: Fraction | tuple[Fraction, ...] = 0.0

    @model_validator(mode="after")
    def _something(self) -> "MissingConfig":
        for name, value in (("image", self.image), ("text", self.text)):
            if value == ():
                raise ValueError(f"{name}: expected at least one share")
        return self

    def shares_of(self, place: int) -> dict[str, float]:
        """Return the shares of records without an `image` and a `text` of a task's client, by its place among them."""
        shares = {"image": self.image, "text": self.text}
        return {name: each[place % len(each)] if isinstance(each, tuple) else each for name, each in shares.items()}


class Scenario(CompactModel):
    """Typed model of a scenario file: tasks, their clients, and the methods and seeds to run.

    With `cross_task`, every client's model also answers the test sets of the other tasks; with `post_fit`, models are
    also evaluated after one more round of local steps. `targets` says when a curve has reached its target: a share of
    what `local` reaches, the same for every task, or a value of each task's headline metric. `unseen` names clients
    and questions that are kept out of training. `conditions` are the imaging conditions of each task's clients, in
    order; further clients start again with the first. `missing` says what clients' training records lack, `canaries`
    how many training records of every VQA client get a rare answer (`pilot.data.canaries`).
    """

    omitted_defaults: ClassVar[frozenset[str]] = frozenset(
        {"cross_task", "post_fit", "targets", "unseen", "conditions", "missing", "canaries"}
    )

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
    cross_task: bool = False
    post_fit: bool = False
    targets: Positive | Mapping[str, Annotated[float, Field(allow_inf_nan=False)]] | None = None
    unseen: UnseenConfig | None = None
    conditions: Annotated[tuple[tuple[Condition, ...], ...], Field(min_length=2)] | None = None
    missing: MissingConfig | None = None
    canaries: Count | None = None

    @model_validator(mode="after")
    def _distinct(self) -> "Scenario":
        named = {
            "methods": self.methods,
            "seeds": self.seeds,
            "tasks": tuple(task.name for task in self.tasks),
        }
        for field, values in named.items():
            if len(set(values)) != len(values):
                raise ValueError(f"{field}: expected distinct values, got {list(values)}")
        if isinstance(self.targets, Mapping) and (unknown := [n for n in self.targets if n not in named["tasks"]]):
            known = ", ".join(task.name for task in self.tasks)
            raise ValueError(f"targets: unknown task {', '.join(unknown)}. Expected some of: {known}")
        if self.unseen is not None:
            self._check_unseen(self.unseen)
        if self.conditions is not None and len(set(self.conditions)) != len(self.conditions):
            raise ValueError("conditions: expected distinct conditions for the clients of a task")
        return self

    def first_seeds(self, number: int | None) -> tuple[int, ...]:
        """Return the first `number` seeds: the scenario's own, then the smallest others; all of its own for None."""
        if number is None:
            return self.seeds
        others = (seed for seed in itertools.count() if seed not in self.seeds)
        return tuple(itertools.islice(itertools.chain(self.seeds, others), number))

    def _check_unseen(self, unseen: UnseenConfig) -> None:
        for task in self.tasks:
            if task.num_clients <= unseen.clients_per_task:
                raise ValueError(
                    f"unseen.clients_per_task: {unseen.clients_per_task} of {task.num_clients} clients leave none of "
                    f"task {task.name} to train. Raise its num_clients"
                )
        known = ", ".join(task.name for task in self.tasks)
        if unseen.questions is not None and unseen.questions.task not in {task.name for task in self.tasks}:
            raise ValueError(f"unseen.questions.task: unknown task {unseen.questions.task}. Expected one of: {known}")

    @property
    def client_tasks(self) -> tuple[TaskConfig, ...]:
        """Each training client's task, by client id (clients are ordered by task)."""
        unseen = self.unseen.clients_per_task if self.unseen else 0
        return tuple(task for task in self.tasks for _ in range(task.num_clients - unseen))

    @property
    def unseen_tasks(self) -> tuple[TaskConfig, ...]:
        """The task of each client that takes no part in training; their ids follow those of the others."""
        return tuple(task for task in self.tasks for _ in range(self.unseen.clients_per_task if self.unseen else 0))

    def clients_of(self, task_name: str) -> tuple[int, ...]:
        """Return the ids of a task's training clients, in ascending order."""
        return tuple(client for client, task in enumerate(self.client_tasks) if task.name == task_name)

    def all_clients_of(self, task_name: str) -> tuple[int, ...]:
        """Return the ids of a task's clients: those that train, then those that take no part."""
        return (*self.clients_of(task_name), *self.unseen_clients_of(task_name))

    def unseen_clients_of(self, task_name: str) -> tuple[int, ...]:
        """Return the ids of a task's clients that take no part in training, in ascending order."""
        first = len(self.client_tasks)
        return tuple(client for client, task in enumerate(self.unseen_tasks, start=first) if task.name == task_name)

    def condition_of(self, client: int) -> int:
        """Return the place in `conditions` of what a client's camera does to its images.

        Raises:
            ValueError: the scenario has no conditions.
        """
        if self.conditions is None:
            raise ValueError(f"scenario {self.name} has no conditions")
        of_task = next(clients for task in self.tasks if client in (clients := self.all_clients_of(task.name)))
        return of_task.index(client) % len(self.conditions)

    def is_unseen_question(self, task_name: str, attributes: Mapping[str, Any]) -> bool:
        """Return whether a record of a task is kept out of training by its attributes."""
        held = self.unseen.questions if self.unseen else None
        return held is not None and held.task == task_name and str(attributes.get(held.attribute)) == held.value
