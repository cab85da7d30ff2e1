"""The Open Inference Protocol without a transport."""
