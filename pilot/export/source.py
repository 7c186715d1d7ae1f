"""Input of an export: one client's model of a finished run, as state and description."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pilot.backbone.backbone import Backbone
from pilot.backbone.sources import BACKBONES
from pilot.connector.base import PlainConnector
from pilot.errors import UserError
from pilot.evaluation.imported.run import refuse_imported
from pilot.evaluation.trained import load_run, run_spec
from pilot.federation.spec import RunSpec, finished_config
from pilot.methods.base import ClientInfo, State, select
from pilot.methods.blind import Blind
from pilot.methods.mixed_lora import OTHERS


@dataclass(frozen=True)
class TrainedModel:
    """One client's model of a run.

    Attributes:
        run_dir: the run's folder.
        spec: the run's specification.
        config: content of its `config.json`.
        client: number of the client.
        info: the client as its method sees it (for pooled data, the only client).
        clients: numbers of all clients with this model.
        state: all parameters of LoRA and connector, by name.
        plain: whether the connector is a single MLP, as in LLaVA, and the LLM has one LoRA.
        backbone: the backbone with LoRA, whose values are unspecified.
    """

    run_dir: Path
    spec: RunSpec
    config: dict[str, Any]
    client: int
    info: ClientInfo
    clients: tuple[int, ...]
    state: State
    plain: bool
    backbone: Backbone

    @property
    def base_name(self) -> str:
        """The base model's name on the hub, or its name here if it is not on the hub."""
        name = self.spec.profile.backbone
        return BACKBONES[name].hub or name

    @property
    def scale(self) -> float:
        """LoRA's alpha / r."""
        return self.spec.profile.lora.alpha / self.spec.profile.lora.rank


def load_trained_model(run_dir: Path, client: int) -> TrainedModel:
    """Open the model of one client after training.

    Raises:
        UserError: the run is not finished, has no model (imported answers, majority) or no such client, or its
            checkpoint or the client's private state is missing or damaged.
    """
    refuse_imported([run_dir])
    spec = run_spec(run_dir)
    num_clients = len(spec.scenario.client_tasks)
    if isinstance(spec.make_method(), Blind):
        raise UserError(f"{run_dir}: method {spec.method} has no model to export. Choose the run of another method.")
    if not 0 <= client < num_clients:
        raise UserError(
            f"{run_dir}: no client {client} in this run. Expected --client in 0..{num_clients - 1} "
            f"({', '.join(f'{k}: {task.name}' for k, task in enumerate(spec.scenario.client_tasks))})."
        )
    backbone, models = load_run(run_dir)
    clients, loader = next((clients, loader) for clients, loader in models.items() if client in clients)
    model = loader()
    infos = {info.client: info for info in spec.clients(spec.make_method())}
    state = model.state()
    plain = isinstance(model.connector, PlainConnector) and not select(state, {OTHERS})
    config = finished_config(run_dir)
    info = infos[client if client in infos else 0]
    return TrainedModel(run_dir, spec, config, client, info, clients, state, plain, backbone)
