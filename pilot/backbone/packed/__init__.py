"""Forward and backward passes and generation over packed tokens, on plain tensors, for training and answers."""
