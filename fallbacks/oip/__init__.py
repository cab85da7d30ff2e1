"""The Open Inference Protocol: its messages, and models that live in a server which speaks it."""
