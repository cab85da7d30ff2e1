"""A first policy for a model: what its inputs and outputs are, which promises its rows support, as commented
YAML.

Imports calibration, deployment, policy, protocol, core, fallbacks. Read `scaffold.py` first.
"""
