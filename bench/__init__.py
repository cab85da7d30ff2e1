"""Measurements: load tests of a running gateway, the quality of its guards, and costs beside other servers.

May import every package; no package imports it. Read `README.md` for the commands, then `load.py`.
"""

import os

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # also for the servers that a bench starts: fallbacks/__init__.py
