"""Runs on several machines: the Flower app, keys, nodes, and a complete deployment on a single machine."""

import pilot.federation  # noqa: F401 - first: it sets what Flower reads when it is imported
