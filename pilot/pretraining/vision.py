"""Phase 1 of tiny-llava's pre-training: the vision tower, on dense labels.

Every feature that the connector will read learns which item covers its cell of the image and where the item's edges
are; the image's vector (LLaVA: the class token of the last layer, as CLIP's learns the caption) learns which items the
image contains. The heads are discarded.
"""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from pilot.data.scenes.scene import SIZE, Scene
from pilot.io.seeding import seed_for
from pilot.pretraining.corpus import CLASSES, class_of, public_scene
from pilot.pretraining.parts import Parts
from pilot.pretraining.recipe import Recipe
from pilot.pretraining.step import Report, index_batches, optimise

EDGE_LOSS_WEIGHT = 4.0
PRESENCE_LOSS_WEIGHT = 1.0
MIN_COVERAGE = 0.12
"""Share of a patch that an item must cover to be the patch's label."""


def dense_labels(scene: Scene, patch: int) -> tuple[np.ndarray, np.ndarray]:
    """Return per patch (N, row by row) the class (N,), and edges x1, y1, x2, y2 relative to the patch's centre (N, 4).

    Edges are in units of the image's side; patches that show nothing have class 0 and edges 0.
    """
    side = SIZE // patch
    classes, edges = np.zeros(side * side, dtype=np.int64), np.zeros((side * side, 4), dtype=np.float32)
    best = np.full(side * side, MIN_COVERAGE * patch * patch)
    corners = np.arange(side) * patch
    for item in scene.items:
        x1, y1, x2, y2 = item.box
        width = np.clip(np.minimum(x2, corners + patch) - np.maximum(x1, corners), 0, None)
        height = np.clip(np.minimum(y2, corners + patch) - np.maximum(y1, corners), 0, None)
        cover = (height[:, None] * width[None, :]).reshape(-1)
        chosen = cover > best
        best[chosen] = cover[chosen]
        centre_x = np.tile(corners + patch / 2, side)
        centre_y = np.repeat(corners + patch / 2, side)
        offsets = np.stack([x1 - centre_x, y1 - centre_y, x2 - centre_x, y2 - centre_y], axis=1) / SIZE
        classes[chosen], edges[chosen] = class_of(item), offsets[chosen]
    return classes, edges


class ScenePool:
    """Public scenes as tensors: pixels uint8 (M, 3, S, S), patch classes (M, N), edges (M, N, 4), presence (M, K)."""

    def __init__(self, seed: int, split: str, size: int, patch: int, progress: Callable[[int], None]) -> None:
        num_patches = (SIZE // patch) ** 2
        self.pixels = torch.empty(size, 3, SIZE, SIZE, dtype=torch.uint8)
        self.classes = torch.empty(size, num_patches, dtype=torch.int64)
        self.edges = torch.empty(size, num_patches, 4)
        self.presence = torch.zeros(size, len(CLASSES))
        for index in range(size):
            scene = public_scene(seed, split, index).scene
            classes, edges = dense_labels(scene, patch)
            self.pixels[index] = torch.from_numpy(np.array(scene.image)).permute(2, 0, 1)
            self.classes[index], self.edges[index] = torch.from_numpy(classes), torch.from_numpy(edges)
            for item in scene.items:
                self.presence[index, class_of(item)] = 1.0
            progress(index + 1)

    def __len__(self) -> int:
        return len(self.pixels)


class DenseHeads(nn.Module):
    """Heads for the vision tower during pre-training; not part of the shipped model."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.classes = nn.Linear(width, len(CLASSES))
        self.edges = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, 4))
        self.presence = nn.Linear(width, len(CLASSES))

    def forward(self, patches_BND: Tensor, pooled_BD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        normed = self.norm(patches_BND)
        return self.classes(normed), self.edges(normed), self.presence(pooled_BD)


def normalise(pixels: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Convert uint8 pixels (B, 3, S, S) to the processor's normalised floats."""
    return (pixels.float() / 255.0 - mean[:, None, None]) / std[:, None, None]


def dense_loss(parts: Parts, heads: DenseHeads, pixels: Tensor, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Compute losses and measures of one batch: `loss`, `accuracy` of non-empty patches, `edge_pixels` (mean error)."""
    classes, edges, presence = heads(*parts.look(pixels))
    filled = batch["classes"] > 0
    class_loss = functional.cross_entropy(classes.flatten(0, 1), batch["classes"].flatten())
    edge_loss = functional.smooth_l1_loss(edges[filled], batch["edges"][filled], beta=0.05) * 20
    presence_loss = functional.binary_cross_entropy_with_logits(presence, batch["presence"]) * 20
    with torch.no_grad():
        accuracy = (classes.argmax(-1) == batch["classes"])[filled].float().mean()
        edge_pixels = (edges - batch["edges"])[filled].abs().mean() * SIZE
    loss = class_loss + EDGE_LOSS_WEIGHT * edge_loss / 4 + PRESENCE_LOSS_WEIGHT * presence_loss
    return {"loss": loss, "accuracy": accuracy, "edge_pixels": edge_pixels}


def train_vision(
    parts: Parts, pool: ScenePool, recipe: Recipe, statistics: tuple[Tensor, Tensor], report: Report
) -> None:
    """Run phase 1 over `pool`; `statistics` are the processor's mean and standard deviation (3,)."""
    torch.manual_seed(seed_for("dense heads", recipe.seed))
    heads = DenseHeads(recipe.feature_width)
    indices = index_batches(len(pool), recipe.vision.batch_size, seed_for("vision batches", recipe.seed))

    def batches() -> Iterator[dict[str, Tensor]]:
        for rows in indices:
            pixels = normalise(pool.pixels[rows], *statistics)
            yield {
                "pixels": pixels, "classes": pool.classes[rows], "edges": pool.edges[rows],
                "presence": pool.presence[rows],
            }  # fmt: skip

    def loss_of(batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return dense_loss(parts, heads, batch["pixels"], batch)

    optimise(recipe.vision, [*parts.tower.parameters(), *heads.parameters()], batches(), loss_of, report)
