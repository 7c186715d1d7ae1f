"""What a run will need, before it starts: memory, disk, bytes exchanged, steps and hours. Arithmetic, no PyTorch."""
