"""The model card of an exported model: description, training data, scores, limits, and code that loads it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pilot.backbone.sources import SHIPPED
from pilot.export.licences import backbone_licence, source_note
from pilot.export.source import TrainedModel
from pilot.io.atomic import read_json, read_jsonl
from pilot.io.digest import sha256_file
from pilot.io.layout import scenario_folder
from pilot.io.verified import check_note

LIBRARIES = {"merged": "transformers", "adapter": "peft", "mixture": "pilot-bench"}
_MESSAGES = (
    'content = [{"type": "image", "image": Image.open("photo.jpg")}, {"type": "text", "text": "Describe the image."}]'
)
_GENERATION_CODE = (
    f"{_MESSAGES}\n"
    'inputs = processor.apply_chat_template([{"role": "user", "content": content}], tokenize=True, return_dict=True, '
    'return_tensors="pt")\n'
    'print(processor.decode(model.generate(**inputs, max_new_tokens=64)[0, inputs["input_ids"].shape[1] :], '
    "skip_special_tokens=True))"
)
LOADING_CODE = {
    "merged": "from PIL import Image\n"
    "from transformers import LlavaForConditionalGeneration, LlavaProcessor\n"
    'model, processor = LlavaForConditionalGeneration.from_pretrained("."), LlavaProcessor.from_pretrained(".")\n'
    f"{_GENERATION_CODE}",
    "adapter": "from PIL import Image; from peft import PeftModel\n"
    "from transformers import LlavaForConditionalGeneration, LlavaProcessor\n"
    "base = LlavaForConditionalGeneration.from_pretrained({base})\n"
    'model, processor = PeftModel.from_pretrained(base, "."), LlavaProcessor.from_pretrained(".")\n'
    f"{_GENERATION_CODE}",
    "mixture": "from PIL import Image\n"
    "from pilot.export import load\n"
    'model = load(".")\n'
    'print(model.answer([Image.open("photo.jpg")], ["Describe the image."])[0])',
}


def card_text(trained: TrainedModel, form: str, folder: Path, *, exact_prompts: bool, notes: Sequence[str] = ()) -> str:
    """Return the card as Markdown with YAML front matter; it depends only on the run and the exported files.

    Args:
        trained: the exported model.
        form: `merged`, `adapter` or `mixture`.
        folder: folder of the exported weights, for their digests.
        exact_prompts: whether the stock processor's prompt ids are those of training.
        notes: further limits.
    """
    spec = trained.spec
    sections = [
        _front_matter(trained, form),
        f"# {spec.method}, client {trained.client} of {spec.scenario.name}",
        _summary(trained, form),
        f"## Load it\n\nIn this folder, with an image `photo.jpg`:\n\n```python\n{loading_code(trained, form)}\n```",
        "## Training data\n\n" + _data(trained),
        "## Scores\n\n" + _scores(trained),
        "## Limits\n\n" + _list([*_limits(trained, form, exact_prompts), *notes]),
        "## Licences\n\n" + _licences(trained),
        "## Digests (sha256)\n\n" + _digests(trained, folder),
    ]
    return "\n\n".join(sections) + "\n"


def loading_code(trained: TrainedModel, form: str) -> str:
    """Return the lines of Python that load the model in its folder and ask it a question."""
    profile = trained.spec.profile
    base = repr(trained.base_name) + (f", revision={profile.revision!r}" if profile.revision else "")
    if profile.backbone in SHIPPED:
        base = f"pilot.backbone.sources.SHIPPED[{profile.backbone!r}]"
    text = LOADING_CODE[form].replace("{base}", base)
    family = trained.backbone.family
    if family.model_type != "llava":
        text = text.replace("LlavaForConditionalGeneration", family.model_class).replace(
            "LlavaProcessor", "AutoProcessor"
        )
        text = text.replace('AutoProcessor.from_pretrained(".")', f"AutoProcessor.from_pretrained({base})")
        text = text.replace(
            f"\n{_GENERATION_CODE}",
            f"\nvars(processor.image_processor).update({dict(family.one_tile)})\n{_GENERATION_CODE}",
        )
    if "SHIPPED" in text:
        text = text.replace("import PeftModel", "import PeftModel; import pilot.backbone.sources")
    return text


def _front_matter(trained: TrainedModel, form: str) -> str:
    spec = trained.spec
    tags = ["pilot-bench", "federated-learning", trained.backbone.family.model_type, spec.method, spec.scenario.name]
    lines = [
        f"license: {backbone_licence(spec.profile.backbone)[0]}",
        f"library_name: {LIBRARIES[form]}",
        "pipeline_tag: image-text-to-text",
        f"base_model: {trained.base_name}",
        f"base_model_relation: {'finetune' if form == 'merged' else 'adapter'}",
        "tags:",
        *(f"- {tag}" for tag in tags),
    ]
    return "\n".join(["---", *lines, "---"])


def _summary(trained: TrainedModel, form: str) -> str:
    spec = trained.spec
    others = [client for client in trained.clients if client != trained.client]
    shared = f"the same as that of clients {', '.join(map(str, others))}" if others else "its own"
    kind = {
        "merged": f"A `{trained.backbone.family.model_class}` checkpoint with LoRA merged into the weights.",
        "adapter": "A PEFT adapter (LoRA and the projector) over the base model.",
        "mixture": "LoRA and connectors over the frozen base model, which is not in this folder.",
    }[form]
    tasks = spec.scenario.client_tasks
    rows = [
        ("scenario", f"{spec.scenario.name}: {spec.scenario.title}"),
        ("method", spec.method),
        ("seed", spec.seed),
        ("client", f"{trained.client} of {len(tasks)}, task {tasks[trained.client].name}; its model is {shared}"),
        ("profile", spec.profile.name),
        ("base model", spec.profile.backbone),
        ("LoRA", f"rank {spec.profile.lora.rank}, alpha {spec.profile.lora.alpha:g}"),
        ("rounds", spec.profile.rounds),
    ]
    return f"{kind} Trained by pilot-bench.\n\n" + _table(("", ""), rows)


def _data(trained: TrainedModel) -> str:
    cards = _cards(trained)
    counts = _examples(trained.run_dir)
    tasks = [
        (
            task.name, card["kind"], f"`{card['source']}`",
            *(card["splits"][split]["num_records"] for split in ("train", "test")),
        )
        for task, card in zip(trained.spec.scenario.tasks, cards, strict=True)
    ]  # fmt: skip
    text = _table(("task", "kind", "source", "train records", "test records"), tasks)
    if not counts:
        return f"{text}\n\nThe model was not trained: it is the base model."
    shown = ", ".join(f"client {client}: {number}" for client, number in counts.items())
    own = counts.get(trained.info.client)
    return (
        f"{text}\n\nTraining examples, after held-out parts were set aside: {shown}. This model's client trained on "
        f"{own if own is not None else 'none'}; the parameters received from others depend on their examples."
    )


def _examples(run_dir: Path) -> dict[int, int]:
    """Return the number of training examples by client, as `rounds.jsonl` records them."""
    path = run_dir / "rounds.jsonl"
    rows = read_jsonl(path) if path.is_file() else []
    counts = {client["client"]: client["num_examples"] for row in rows for client in row["clients"]}
    return dict(sorted(counts.items()))


def _scores(trained: TrainedModel) -> str:
    path = trained.run_dir / "eval" / "metrics.json"
    if not path.is_file():
        return "Not evaluated."
    check_note(path)
    rows = [
        (
            entry["task"], entry["protocol"], entry["metric"], entry["num_examples"],
            f"{entry['value']:.4f}" if entry["value"] is not None else f"{entry['status']}: {entry['reason']}",
        )
        for entry in read_json(path, {"entries": list})["entries"]
        if entry["client"] == trained.client
    ]  # fmt: skip
    text = _table(("task", "protocol", "metric", "examples", "value"), rows)
    return f"{text}\n\n`personalised`: the task's test set; `local`: a held-out part of the client's data. One seed."


def _limits(trained: TrainedModel, form: str, exact_prompts: bool) -> list[str]:
    lines = [
        "One image and one user turn; answers are short, as in the training data.",
        "Federated training alone does not guarantee privacy: a model may reproduce its training data.",
    ]
    if trained.spec.profile.backbone in SHIPPED:
        lines.append("The base model is tiny and knows only composed scenes: it serves to compare methods.")
    profile, kinds = trained.spec.profile, {task.kind for task in trained.spec.scenario.tasks}
    if "ground" in kinds and profile.frame == "padded_square":
        lines.append(
            "Boxes in answers are fractions of the centred square that pads the image, not of the image: with "
            "s = max(w, h) of a w x h image, x = (s x' - (s - w) // 2) / w and y = (s y' - (s - h) // 2) / h."
        )
    if trained.backbone.family.note:
        lines.append(trained.backbone.family.note)
    if form != "mixture" and trained.backbone.family.model_type == "llava":
        lines.append(
            "Images are padded to a square with the mean colour (`do_pad`), as in training. Pixels are equal to those "
            "of training with transformers' Pillow image processor, which you select by "
            '`LlavaProcessor.from_pretrained(".", backend="pil")`. The torchvision image processor, which transformers '
            "may choose if torchvision is installed, was not compared."
        )
        if not exact_prompts:
            lines.append(
                "The stock tokenizer call joins the text around the image differently from training: a probe prompt "
                "has different token ids after the image, so answers can differ from those that were scored."
            )
    return lines


def _licences(trained: TrainedModel) -> str:
    name = trained.spec.profile.backbone
    notes = [f"base model {name}: {backbone_licence(name)[1]}"]
    for card in _cards(trained):
        note = f"`{card['source']}`: {source_note(card)}"
        if note not in notes:
            notes.append(note)
    return _list(notes)


def _digests(trained: TrainedModel, folder: Path) -> str:
    config = [(name, f"`{value}`") for name, value in sorted(trained.config["digests"].items())]
    manifest = read_json(trained.run_dir / "manifest.json", {"config_digest": str})
    files = [(path.name, f"`{sha256_file(path)}`") for path in sorted(folder.glob("*.safetensors"))]
    return _table(("what", "digest"), [*config, ("run configuration", f"`{manifest['config_digest']}`"), *files])


def _cards(trained: TrainedModel) -> list[dict[str, Any]]:
    data = scenario_folder(trained.run_dir) / "data"
    return [read_json(data / task.name / "card.json", {"source": str}) for task in trained.spec.scenario.tasks]


def _table(head: Sequence[object], rows: Sequence[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)


def _list(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)
