"""What a backbone could do before tuning, measured on tuned models.

Of a backbone that ships, the captions and facts of its public corpus, on held-out scenes and in the corpus's wording,
without the prompt template: `public-captions` lists a scene's objects (CIDEr), `public-facts` completes statements
(exact match). Of any other backbone, the tasks of lm-eval that the profile names; they are answered through lm-eval's
own evaluator, with its own metrics, and must generate text about one image.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pilot.backbone.from_profile import load_backbone
from pilot.backbone.shared_features import shared_features
from pilot.backbone.sources import SHIPPED
from pilot.config.files import check_known
from pilot.config.profile import Profile
from pilot.evaluation.public import CAPTIONS, FACTS, FACTS_PER_SCENE, NUM_SCENES, PUBLIC, fact_id, scene_id
from pilot.federation.client import ClientModel
from pilot.federation.spec import RunSpec
from pilot.federation.training import client_models
from pilot.io.layout import PER_EXAMPLE, SAMPLES, scenario_folder

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

PLAIN = "<image>\n{instruction}"
"""Template that puts a text behind the image as the public corpus does."""
LM_EVAL = "lm-eval"
"""Kind of tasks whose answers lm-eval scores."""
_LEAD = "Seen:"
_LIMITS = {CAPTIONS: 40, FACTS: 16}
Row = dict[str, Any]


@dataclass(frozen=True)
class Statement:
    """The start of a text of the public corpus about a scene, and how it goes on."""

    task: str
    id: str
    image: "Image.Image"
    lead: str
    ending: str


def check_forgetting(profile: Profile) -> None:
    """Refuse tasks that nobody knows, before anything is trained.

    Raises:
        UserError: an unknown task, or one of the public corpus for a backbone that was not pre-trained on it.
    """
    public = PUBLIC if profile.backbone in SHIPPED else ()
    others = [name for name in profile.forgetting if name not in public]
    if others:
        check_known(f"profile {profile.name}", "forgetting", others, [*public, *_tasks_of_lm_eval()])


@cache
def _tasks_of_lm_eval() -> tuple[str, ...]:
    """Return the names of all tasks that lm-eval ships; reading them takes seconds."""
    from lm_eval.tasks import TaskManager

    return tuple(TaskManager().all_tasks)


def public_statements() -> list[Statement]:
    """Return the statements about the first held-out scenes of tiny-llava's public corpus."""
    from pilot.pretraining.captions import list_objects
    from pilot.pretraining.corpus import public_scene
    from pilot.pretraining.fact_captions import fact_caption
    from pilot.pretraining.recipe import Recipe

    found = []
    for number in range(NUM_SCENES):
        public = public_scene(Recipe().seed, "held-out", number)
        scene = public.scene
        if public.kind == "object":
            ending = list_objects(scene).removeprefix(_LEAD).strip()
            found.append(Statement(CAPTIONS, scene_id(number), scene.image, _LEAD, ending))
        for place, (lead, ending) in enumerate(fact_caption(public)[:FACTS_PER_SCENE]):
            found.append(Statement(FACTS, fact_id(number, place), scene.image, lead, ending))
    return found


def public_rows(spec: RunSpec, run_dir: Path, progress: Callable[[int, int], None]) -> list[Row]:
    """Return the rows of `samples.jsonl` of the public tasks that the profile names: all models, all statements."""
    import torch

    backbone = load_backbone(spec.profile.model_copy(update={"prompt_template": PLAIN}), lean=True)
    asked = [each for each in public_statements() if each.task in spec.profile.forgetting]
    images, folder = [each.image for each in asked], scenario_folder(run_dir) / "features"
    features_MND = shared_features(backbone, spec.profile, images, folder, "public")
    models = client_models(spec, backbone, run_dir)
    rows: list[Row] = []
    for done, (clients, load) in enumerate(models.items(), start=1):
        model = load()
        for task in PUBLIC:
            places = [place for place, each in enumerate(asked) if each.task == task]

            def image_tokens(chosen: list[int], model: ClientModel = model, places: list[int] = places) -> "Tensor":
                with torch.no_grad():
                    of_images = features_MND[[places[row] for row in chosen]]
                    tokens: Tensor = model.connector(backbone.numerics.to_device(of_images)).tokens_BNC
                return tokens

            texts = backbone.answer(image_tokens, [asked[place].lead for place in places], _LIMITS[task])
            for place, text in zip(places, texts, strict=True):
                rows.append(_row(asked[place], list(clients), text.split(".")[0].strip() + "."))
        progress(done, len(models))
    return sorted(rows, key=lambda row: (row["task"], row["clients"], row["id"]))


def _row(statement: Statement, clients: list[int], prediction: str) -> Row:
    return {
        "task": statement.task,
        "kind": "caption" if statement.task == CAPTIONS else "vqa",
        "protocol": "personalised",
        "clients": clients,
        "id": statement.id,
        "prediction": prediction,
        "references": [statement.ending],
        "box": None,
        "attributes": {"lead": statement.lead},
    }


def lm_eval_metrics(
    models: Mapping[tuple[int, ...], Callable[[], Any]], names: Sequence[str], progress: Callable[[int, int], None]
) -> dict[str, Any]:
    """Run tasks of lm-eval on every model; return the content of `metrics.json`.

    Args:
        models: functions that load a model for lm-eval, by the clients that have it.
        names: lm-eval's names.
        progress: called after each model.
    """
    from lm_eval.evaluator import simple_evaluate

    entries = []
    for done, (clients, load) in enumerate(models.items(), start=1):
        found = simple_evaluate(load(), tasks=list(names), bootstrap_iters=0, random_seed=0, numpy_random_seed=0)
        assert found is not None, "only processes of rank 0 evaluate"
        for name in names:
            for metric, value in sorted(found["results"][name].items()):
                if isinstance(value, float) and not metric.startswith(("alias", "sample")) and "_stderr" not in metric:
                    entries += [_entry(name, client, metric.split(",")[0], value, found) for client in clients]
        progress(done, len(models))
    digests = {f"{Path(name).stem}_digest": "" for name in (SAMPLES, PER_EXAMPLE)}
    return {**digests, "test_digest": "", "entries": entries}


def _entry(task: str, client: int, metric: str, value: float, found: Mapping[str, Any]) -> dict[str, Any]:
    count = found.get("n-samples", {}).get(task, {}).get("effective", 0)
    named = {"task": task, "kind": LM_EVAL, "protocol": "personalised", "client": client, "metric": metric}
    return named | {"value": round(value, 6), "status": "ok", "reason": "", "num_examples": count}
