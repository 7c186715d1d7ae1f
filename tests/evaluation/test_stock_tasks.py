"""Image tasks that ship with lm-eval run on a trained client's model; nothing here may reach for a network."""

import io
import socket
from pathlib import Path
from typing import Any

import lm_eval
import pytest
import yaml
from PIL import Image

from pilot.errors import UserError
from pilot.evaluation.answers import answer_rows
from pilot.evaluation.lm import PilotLM, _instruction

from ..small import Small, quiet

SHIPPED = Path(lm_eval.__file__).parent / "tasks"
RED, WIDE = (Image.new("RGB", (80, 80), "red"), Image.new("L", (60, 30), 90))


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every connection and every look-up of a name is an error, also where somebody would catch an OSError."""

    def refuse(*arguments: Any) -> Any:
        raise AssertionError(f"contacts {arguments[-1]}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket.socket, "connect_ex", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture
def model(small: Small) -> PilotLM:
    """Client 3 of a Pilot run."""
    return PilotLM(run=str(small.run("pilot")), client=3)


def png(image: Image.Image) -> dict[str, Any]:
    """An image as the hub's parquet files hold it."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return {"bytes": buffer.getvalue(), "path": None}


def evaluate(
    model: PilotLM, file: str, split: str, rows: list[dict[str, Any]], images: list[str], target: Path
) -> dict[str, Any]:
    """A shipped task over `rows` in a local parquet file with image columns: only the data's address is another.

    A file of the same task in `target` includes the shipped one, as `--include_path` lets a user do.
    """
    from datasets import Dataset
    from datasets import Image as ImageColumn
    from lm_eval.evaluator import simple_evaluate
    from lm_eval.tasks import TaskManager

    data = Dataset.from_list(rows)
    for name in images:
        data = data.cast_column(name, ImageColumn())
    data.to_parquet(target / "rows.parquet")
    files = {"data_files": {split: str(target / "rows.parquet")}, "cache_dir": str(target / "cache")}
    local = {"include": str(SHIPPED / file), "dataset_path": "parquet", "dataset_name": None, "dataset_kwargs": files}
    (target / "local.yaml").write_text(yaml.safe_dump(local | {"task": "local"}))
    manager = TaskManager(include_path=str(target), include_defaults=False)
    results = simple_evaluate(
        model, tasks=["local"], task_manager=manager, bootstrap_iters=0, gen_kwargs="max_gen_toks=12", log_samples=True
    )
    assert results is not None
    found: dict[str, Any] = results
    return found


def mmmu(question: str, images: list[Image.Image]) -> dict[str, Any]:
    """A record of MMMU, less what the task does not read."""
    columns = dict.fromkeys((f"image_{n}" for n in range(1, 8)), None) | {
        f"image_{n}": png(image) for n, image in enumerate(images, start=1)
    }
    fixed = {"id": "validation_Accounting_1", "options": "['1', '2']", "answer": "A"}
    return fixed | {"question": question, "question_type": "multiple-choice"} | columns


@pytest.mark.slow
@pytest.mark.usefixtures("no_network")
def test_chartqa(model: PilotLM, tmp_path: Path) -> None:
    """Charts need not be square or coloured; what is scored is what the model generates for the task's prompt."""
    rows = [
        {"image": png(image), "query": f"Which bar is {word}?", "label": [word], "human_or_machine": 0}
        for image, word in ((RED, "red"), (WIDE, "wide"))
    ]
    results = evaluate(model, "chartqa/chartqa.yaml", "test", rows, ["image"], tmp_path)
    scores = results["results"]["local"]
    assert {"exact_match,none", "relaxed_accuracy,none", "anywhere_accuracy,none"} <= scores.keys()
    samples = results["samples"]["local"]
    backbone = model._backbone
    for sample, image in zip(samples, (RED, WIDE), strict=True):
        text = sample["arguments"][0][0].removeprefix("<image>")
        assert text.startswith("Which bar is") and "Final Answer: <answer>" in text
        tokens = model._model.connector(backbone.image_features([image])).tokens_BNC
        assert sample["filtered_resps"] == backbone.answer(lambda _, tokens=tokens: tokens, [text], 12)
    assert samples[0]["filtered_resps"][0]


@pytest.mark.slow
@pytest.mark.usefixtures("no_network")
def test_mmmu(model: PilotLM, tmp_path: Path) -> None:
    """The image may be named inside the question; several images are refused with the reason."""
    columns = [f"image_{n}" for n in range(1, 8)]
    arguments = ("mmmu/mmmu_accounting.yaml", "validation")
    results = evaluate(model, *arguments, [mmmu("How many are in <image 1>?", [RED])], columns, tmp_path)
    assert 0 <= results["results"]["local"]["acc,none"] <= 1
    two = [mmmu("Is <image 1> as large as <image 2>?", [RED, WIDE])]
    with pytest.raises(UserError, match="task local: a request has 2 images, the model `pilot` expects one"):
        evaluate(model, *arguments, two, columns, tmp_path)


def test_the_image_is_taken_out_of_the_prompt() -> None:
    """LLaVA-1.5's rule: it comes first, wherever the text has it; our own prompts stay as trained."""
    assert _instruction("<image>\n What is it? ") == " What is it? "
    assert _instruction("How many are in <image>?\nOne word.") == "How many are in ?\nOne word."
    assert _instruction("What is it?\n<image>") == "What is it?"
    assert _instruction("What is it?") == "What is it?"


@pytest.mark.slow
@pytest.mark.usefixtures("no_network")
def test_our_tasks_contact_nothing(small: Small) -> None:
    """From the run directory to the answers; and lm-eval's evaluator over a task file of the suite."""
    from lm_eval.evaluator import simple_evaluate
    from lm_eval.tasks import TaskManager

    from pilot.evaluation import tasks

    with pytest.raises(AssertionError, match="contacts"):
        socket.create_connection(("huggingface.co", 443))
    run = small.run("fedavg")
    assert len(answer_rows(run, quiet, limit=1)) == 3 + 6
    metadata = {"data": str(small.folder / "data")}
    results = simple_evaluate(
        PilotLM(run=str(run)),
        tasks=["pilot_scene_ground"],
        task_manager=TaskManager(include_path=str(tasks.FOLDER), include_defaults=False, metadata=metadata),
        metadata=metadata,
        bootstrap_iters=0,
        limit=2,
    )
    assert results is not None and len(results["samples"]["pilot_scene_ground"]) == 2
