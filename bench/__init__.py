"""Measurements of the gateway: its speed (`python -m bench URL`), and what it promises.

Floor 4: everything may be imported from here, and nothing imports this.
"""

import os

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # also for the servers that a bench starts: fallbacks/__init__.py
