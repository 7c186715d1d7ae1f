"""Forward, backward and generation over packed rows, on plain tensors: what training and answering run."""
