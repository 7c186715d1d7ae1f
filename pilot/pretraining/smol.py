"""The recipe of `smol`'s connector: `python -m pilot.pretraining.smol WORK`; tower and LLM stay as their packages are.

1. Features of the public scenes, once.
2. `align`, without the LLM: every cell's token gets the direction and the length of the embedding of the word for what
   covers the cell, and the item's edges stay readable by a linear head, which is discarded.
3. `captions`: captions and facts through the frozen LLM; the first loss stays, with a smaller weight.

Every phase keeps its state every `KEPT` steps; a process that was killed goes on from there, to the same bytes. What a
step sees is a function of seed and step.
"""

import argparse
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from pilot.backbone.feature_files import FeatureLayout, open_features, write_features
from pilot.backbone.packed.packing import IGNORED
from pilot.backbone.prompts import ChatPrompts
from pilot.backbone.smol import CONNECTOR, CONNECTOR_WEIGHTS, IMAGE, package_digests, read_parts
from pilot.backbone.smol_model import CELLS
from pilot.connector.projector import Projector
from pilot.io.atomic import write_json
from pilot.io.checkpoint import load_state, save_state
from pilot.io.digest import code_digest, digest_json
from pilot.io.seeding import generator, seed_for
from pilot.pretraining.corpus import public_scene
from pilot.pretraining.recipe import PhaseRecipe
from pilot.pretraining.smol_corpus import CellTargets, cell_targets, pad, scene_text, tokenise, word_directions
from pilot.pretraining.step import learning_rate_at

SOURCES = (
    "pilot/pretraining/smol.py", "pilot/pretraining/smol_corpus.py", "pilot/pretraining/corpus.py",
    "pilot/pretraining/captions.py", "pilot/pretraining/focused_captions.py", "pilot/pretraining/fact_captions.py",
    "pilot/data/scenes/sprites.py", "pilot/data/scenes/scene.py",
)  # fmt: skip
KEPT, REPORTED = 50, 10
"""Steps between two states on disk, and between two recorded losses."""
SHARPNESS = 12.0
"""Scale of the cosine between a token and a word's embedding."""
LENGTH_WEIGHT, EDGE_WEIGHT, ALIGNMENT_WEIGHT = 0.1, 4.0, 0.2


@dataclass(frozen=True)
class SmolRecipe:
    """All numbers on which the connector depends, besides the packages' weights."""

    seed: int = 0
    num_scenes: int = 4_096
    num_held_out_scenes: int = 128
    align: PhaseRecipe = PhaseRecipe(steps=1_000, batch_size=48, learning_rate=1e-3)
    captions: PhaseRecipe = PhaseRecipe(steps=300, batch_size=8, learning_rate=1e-3)
    precision: str = "bfloat16"

    def digest(self) -> str:
        """Return the digest of the numbers and of the code that turns them into a connector."""
        return digest_json({"recipe": asdict(self), "source": code_digest(SOURCES)})


class Learner:
    """The connector with what its losses need.

    Args:
        recipe: the recipe.
        work: folder of features and states.
        report: called with a line of text.
    """

    def __init__(self, recipe: SmolRecipe, work: Path, report: Callable[[str], None]) -> None:
        self.recipe, self.work, self.report = recipe, work, report
        self.model, self.tokenizer, self.processor = read_parts()
        self.prompts = ChatPrompts(self.tokenizer, IMAGE)
        self.features = {split: self._features(split, count) for split, count in self._splits().items()}
        self.cells = {split: self._cells(split, count) for split, count in self._splits().items()}
        self.dtype = getattr(torch, recipe.precision)
        embedding_VC = self.model.get_input_embeddings().weight
        self.words_KC = word_directions(self.tokenizer, embedding_VC)
        language = self.model.model.language_model
        self.llm, self.head, self.embed = (
            language.to(self.dtype),
            self.model.lm_head.to(self.dtype),
            language.embed_tokens,
        )
        self.llm.set_attn_implementation("eager")  # less time than SDPA in bfloat16 on a processor
        self.llm.rotary_emb = type(language.rotary_emb)(self.model.config.text_config)  # float32 in every type
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_for("smol connector", recipe.seed))
            width = embedding_VC.shape[1]
            self.connector = Projector(self.model.config.vision_config.hidden_size, width)
            self.edges = nn.Linear(width, 4)

    def _splits(self) -> Mapping[str, int]:
        return {"train": self.recipe.num_scenes, "held-out": self.recipe.num_held_out_scenes}

    def _features(self, split: str, count: int) -> Any:
        """Compute and open the features of a split's scenes."""
        names = [f"{split}-{index:06d}" for index in range(count)]

        def compute(chunk: Any) -> Tensor:
            parts = []
            for start in range(0, len(chunk), 32):
                numbers = [int(name.rsplit("-", 1)[1]) for name in chunk[start : start + 32]]
                images = [public_scene(self.recipe.seed, split, number).scene.image for number in numbers]
                with torch.no_grad():
                    pixels = self.processor(images, return_tensors="pt")["pixel_values"]
                    parts.append(self.model.model.vision_tower(pixels).last_hidden_state)
            return torch.cat(parts)

        layout = FeatureLayout(count, CELLS**2, self.model.config.vision_config.hidden_size, "float16")
        sources = code_digest((*SOURCES[2:3], *SOURCES[-2:], "pilot/backbone/smol.py", "pilot/backbone/smol_model.py"))
        folder, made_of = self.work / f"features-{split}", {"seed": self.recipe.seed, "source": sources}
        progress = lambda done, total: self.report(f"features of {split} scenes: {done} of {total}")  # noqa: E731
        write_features(folder, names, layout, digest_json(made_of), compute, progress)
        return open_features(folder)

    def _cells(self, split: str, count: int) -> CellTargets:
        return cell_targets([public_scene(self.recipe.seed, split, index).scene for index in range(count)], CELLS)

    def parameters(self) -> dict[str, nn.Parameter]:
        """Return what learns, by name: the connector and the head of edges."""
        both = {"connector": self.connector, "edges": self.edges}
        return {f"{name}.{own}": value for name, part in both.items() for own, value in part.named_parameters()}

    def rows(self, phase: str, step: int, count: int) -> list[int]:
        """Draw the scenes of a step."""
        rng = generator("smol rows", self.recipe.seed, phase, step)
        return [int(row) for row in rng.choice(self.recipe.num_scenes, count, replace=False)]

    def align_loss(self, tokens_BNC: Tensor, split: str, rows: list[int]) -> Tensor:
        """Return the loss of directions, lengths and edges of cells."""
        targets, index = self.cells[split], torch.tensor(rows)
        words, filled = targets.words_MN[index].flatten(), targets.filled_MN[index]
        logits = SHARPNESS * functional.normalize(tokens_BNC, dim=-1) @ functional.normalize(self.words_KC, dim=-1).T
        ratio = tokens_BNC.norm(dim=-1) / self.words_KC.norm(dim=-1).mean()
        edges = functional.smooth_l1_loss(self.edges(tokens_BNC[filled]), targets.edges_MN4[index][filled], beta=0.05)
        named = functional.cross_entropy(logits.flatten(0, 1), words)
        return named + LENGTH_WEIGHT * (ratio - 1).square().mean() + EDGE_WEIGHT * edges

    def tokens(self, split: str, rows: list[int]) -> Tensor:
        """Return the image tokens (B, N, C) of scenes."""
        tokens_BNC: Tensor = self.connector(self.features[split].take(rows).float())
        return tokens_BNC

    def text_loss(self, tokens_BNC: Tensor, split: str, rows: list[int], visit: int) -> Tensor:
        """Return the mean cross-entropy of the answers of one conversation per scene."""
        texts = [tokenise(self.prompts, scene_text(self.recipe.seed, split, row, visit)) for row in rows]
        ids_BL, labels_BL = pad(texts, self.prompts.eos_id)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.dtype == torch.bfloat16):
            prefix_BLC = self.embed(torch.tensor(self.prompts.prefix)).expand(len(rows), -1, -1)
            inputs = torch.cat([prefix_BLC, tokens_BNC.to(self.dtype), self.embed(ids_BL)], dim=1)
            hidden = self.llm(inputs_embeds=inputs, use_cache=False).last_hidden_state
            kept = labels_BL != IGNORED
            logits = self.head(hidden[:, inputs.shape[1] - ids_BL.shape[1] - 1 : -1][kept])
        return functional.cross_entropy(logits.float(), labels_BL[kept])

    def loss(self, phase: str, step: int) -> Tensor:
        """Return the loss of a step."""
        rows = self.rows(phase, step, getattr(self.recipe, phase).batch_size)
        tokens_BNC = self.tokens("train", rows)
        aligned = self.align_loss(tokens_BNC, "train", rows)
        if phase == "align":
            return aligned
        return self.text_loss(tokens_BNC, "train", rows, step) + ALIGNMENT_WEIGHT * aligned

    def train(self, phase: str) -> list[float]:
        """Run a phase from its last state on; return its losses, means of `REPORTED` steps."""
        settings: PhaseRecipe = getattr(self.recipe, phase)
        path, parameters = self.work / f"{phase}-{self.recipe.digest()[:12]}.safetensors", self.parameters()
        optimiser = torch.optim.AdamW(parameters.values(), lr=1.0, weight_decay=0.0, betas=(0.9, 0.98))
        losses = _restore(path, parameters, optimiser) if path.is_file() else []
        first, recent, began = REPORTED * len(losses), [], time.monotonic()
        for step in range(first, settings.steps):
            optimiser.param_groups[0]["lr"] = learning_rate_at(step, settings)
            loss = self.loss(phase, step)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(parameters.values(), 1.0)
            optimiser.step()
            recent.append(float(loss.detach()))
            if (step + 1) % REPORTED == 0:
                losses, recent = [*losses, sum(recent) / REPORTED], []
                left = (time.monotonic() - began) / (step + 1 - first) * (settings.steps - step - 1) / 60
                self.report(f"{phase}: step {step + 1} of {settings.steps}, loss {losses[-1]:.4f}, {left:.0f} min left")
            if (step + 1) % KEPT == 0:
                _keep(path, parameters, optimiser, losses)
        return losses

    @torch.no_grad()
    def measure(self) -> dict[str, float]:
        """Measure on held-out scenes: share of cells whose word is nearest, loss of texts, and with another's image."""
        count, size = self.recipe.num_held_out_scenes, self.recipe.captions.batch_size
        groups = [list(range(start, min(start + size, count))) for start in range(0, count, size)]
        sums = dict.fromkeys(("cells", "items", "text_loss", "text_loss_other_image"), 0.0)
        for rows in groups:
            tokens, other = (
                self.tokens("held-out", [(row + move) % count for row in rows]) for move in (0, count // 2)
            )
            directions = functional.normalize(self.words_KC, dim=-1)
            right = (functional.normalize(tokens, dim=-1) @ directions.T).argmax(-1) == self.cells["held-out"].words_MN[
                rows
            ]
            sums["cells"] += float(right.float().mean()) / len(groups)
            sums["items"] += float(right[self.cells["held-out"].filled_MN[rows]].float().mean()) / len(groups)
            sums["text_loss"] += float(self.text_loss(tokens, "held-out", rows, 0)) / len(groups)
            sums["text_loss_other_image"] += float(self.text_loss(other, "held-out", rows, 0)) / len(groups)
        return {name: round(value, 4) for name, value in sums.items()}


def make_connector(recipe: SmolRecipe, work: Path, target: Path, report: Callable[[str], None]) -> dict[str, Any]:
    """Train with `recipe`, keep states in `work`, write connector and record to `target`; return the record.

    Single-threaded: the bytes depend on the recipe, the code, the packages, the libraries and the processor.
    """
    torch.set_num_threads(1)
    learner = Learner(recipe, work, report)
    record: dict[str, Any] = {"recipe": asdict(recipe), "recipe_digest": recipe.digest(), "losses": {}, "held_out": {}}
    for phase in ("align", "captions"):
        record["losses"][phase] = [round(loss, 4) for loss in learner.train(phase)]
        record["held_out"][phase] = learner.measure()
        report(f"{phase}: held-out scenes: {record['held_out'][phase]}")
        digest = save_state(target / CONNECTOR_WEIGHTS, dict(learner.connector.named_parameters()))
        record |= {"packages": package_digests(work), "files": {CONNECTOR_WEIGHTS: digest}}
        write_json(target / "recipe.json", record)
    return record


def _keep(path: Path, parameters: Mapping[str, nn.Parameter], optimiser: Any, losses: list[float]) -> None:
    state = {f"value.{name}": value for name, value in parameters.items()}
    for name, value in parameters.items():
        state |= {f"{key}.{name}": moment for key, moment in optimiser.state[value].items()}
    save_state(path, state | {"losses": torch.tensor(losses, dtype=torch.float64)})


def _restore(path: Path, parameters: Mapping[str, nn.Parameter], optimiser: Any) -> list[float]:
    state = load_state(path)
    for name, value in parameters.items():
        with torch.no_grad():
            value.copy_(state[f"value.{name}"])
        optimiser.state[value] = {key: state[f"{key}.{name}"] for key in ("step", "exp_avg", "exp_avg_sq")}
    losses: list[float] = state["losses"].tolist()
    return losses


def main() -> None:
    """Train the connector as on the command line."""
    parser = argparse.ArgumentParser(description="Train the connector of smol with its recipe.")
    parser.add_argument("work", type=Path, help="folder of features and states; a second call goes on from them")
    parser.add_argument("--target", type=Path, default=CONNECTOR, help="where connector and record are written")
    given = parser.parse_args()
    make_connector(SmolRecipe(), given.work, given.target, lambda line: print(line, file=sys.stderr, flush=True))


if __name__ == "__main__":
    main()
