"""Federated training: rounds, clients, transports, checks of updates, and cost accounting.

Flower and Ray send telemetry unless these variables are set before they are imported.
"""

import os

os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
