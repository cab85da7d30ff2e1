"""What `gateway.yaml` may say, and where in it a problem is."""
