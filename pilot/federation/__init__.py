"""Rounds, clients, transports, and what guards and accounts for them.

Flower and Ray report home unless told otherwise before they are imported.
"""

import os

os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
