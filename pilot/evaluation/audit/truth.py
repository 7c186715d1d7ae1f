"""The truth about a run's clients, which only the judge reads: which examples they have, and which a round took."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pilot.backbone.backbone import Backbone
from pilot.backbone.feature_files import FeatureCache, open_features
from pilot.data.canaries import Canary, choose_canaries
from pilot.data.record import InstructionRecord, read_records
from pilot.evaluation.audit.replica import Candidate
from pilot.evaluation.audit.sighting import Sighting
from pilot.federation.assemble import train_settings
from pilot.federation.checkpoint import Progress, load_last
from pilot.federation.client import PhaseTask
from pilot.federation.identity import CLIENTS
from pilot.federation.shards import Example, draws, make_examples, records_of_part
from pilot.federation.spec import RunSpec
from pilot.federation.store import ClientStore
from pilot.federation.trainer import LocalTrainer, batch_seed
from pilot.io.seeding import generator
from pilot.methods.base import State


@dataclass(frozen=True)
class Shard:
    """Records of a client with their tokenised examples, in the same order."""

    records: Sequence[InstructionRecord]
    examples: Sequence[Example]


@dataclass(frozen=True)
class Truth:
    """What an audit's judge knows of a run.

    Attributes:
        spec: the run's specification.
        run_dir: its folder.
        scenario_dir: the folder with its data.
        backbone: the backbone that it was trained on.
        features: of all images.
        train: training parts by client.
        held_out: validation and local test parts by client, of the same distribution.
    """

    spec: RunSpec
    run_dir: Path
    scenario_dir: Path
    backbone: Backbone
    features: FeatureCache
    train: Mapping[int, Shard]
    held_out: Mapping[int, Shard]

    @classmethod
    def read(cls, spec: RunSpec, run_dir: Path, scenario_dir: Path, backbone: Backbone) -> "Truth":
        """Read the parts of all clients.

        Raises:
            UserError: data, partition or features are missing or damaged.
        """
        features = open_features(scenario_dir / "features")

        def part(name: str) -> dict[int, list[InstructionRecord]]:
            return records_of_part(spec.scenario, scenario_dir, name, frame=spec.profile.frame)

        def shards(parts: Mapping[int, list[InstructionRecord]]) -> dict[int, Shard]:
            return {k: Shard(records, make_examples(backbone, features, records)) for k, records in parts.items()}

        others = [part(name) for name in ("validation", "local_test")]
        held_out = {client: [record for each in others for record in each[client]] for client in others[0]}
        return cls(spec, run_dir, scenario_dir, backbone, features, shards(part("train")), shards(held_out))

    @property
    def num_examples(self) -> dict[int, int]:
        """Number of training examples by client."""
        return {client: len(shard.examples) for client, shard in self.train.items()}

    def trainer(self, backbone: Backbone) -> LocalTrainer:
        """Return a trainer of the run's clients on a backbone."""
        examples = {client: shard.examples for client, shard in self.train.items()}
        return LocalTrainer(
            backbone, self.spec.make_method(), train_settings(self.spec), self.features, examples,
            validation={client: shard.examples for client, shard in self.held_out.items()},
        )  # fmt: skip

    def candidate(self, shard: Shard, place: int) -> Candidate:
        """Return an example as an attacker may try it."""
        record, example = shard.records[place], shard.examples[place]
        return Candidate(
            self.features.take([example.feature_row])[0], tuple(example.prompt), tuple(example.answer),
            record.image_sha256,
        )  # fmt: skip

    def members(self, sighting: Sighting, steps: int) -> list[int]:
        """Return the places of the examples that a client's message was trained on, in the order of their first use."""
        client, settings = sighting.info.client, train_settings(self.spec)
        task = PhaseTask(sighting.info, sighting.phase, sighting.round_number, 0, steps, {})
        taken = itertools.islice(
            draws(len(self.train[client].examples), settings.batch_size, batch_seed(task)),
            steps * settings.accumulation,
        )
        return list(dict.fromkeys(place for batch in taken for place in batch))

    def shuffled(self, client: int, number: int, purpose: str) -> list[int]:
        """Draw the places of `number` training examples of a client, or of all; other seeds of runs draw others."""
        order = generator(self.spec.seed, "audit", purpose, client).permutation(len(self.train[client].examples))
        return [int(place) for place in order[:number]]

    def canaries(self, client: int) -> list[tuple[int, Canary]]:
        """Return a client's canaries with the places of their records."""
        task, records = self.spec.scenario.client_tasks[client], self.train[client].records
        places = {record.id: place for place, record in enumerate(records)}
        found = choose_canaries(self.spec.scenario, task, client, records)
        return [(places[canary.id], canary) for canary in found]

    def public_records(self, task: str) -> list[InstructionRecord]:
        """Return the test set of a task, which stands for what the server knows of the task's answers."""
        path = self.scenario_dir / "data" / task / "records.parquet"
        return [record for record in read_records(path, images=False) if record.split == "test"]

    def final(self) -> Progress:
        """Return the server's last checkpoint."""
        return load_last(self.run_dir / "checkpoint")

    def stored(self, progress: Progress, client: int) -> State:
        """Return a client's private state at a checkpoint."""
        return ClientStore(self.run_dir / CLIENTS / str(client)).load(progress.versions.get(client))
