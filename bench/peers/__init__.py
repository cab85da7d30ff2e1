"""The gateway beside other model servers, on the same model, bodies and machine: `python -m bench.peers`."""
