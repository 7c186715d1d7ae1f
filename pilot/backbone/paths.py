"""Where checkpoints that ship with the package lie."""

from pathlib import Path

TINY_LLAVA = Path(__file__).parent / "tiny_llava_checkpoint"
BACKBONES = {"tiny-llava": TINY_LLAVA}
