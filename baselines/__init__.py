"""One file per baseline method."""
