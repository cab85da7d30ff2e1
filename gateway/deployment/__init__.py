"""What one folder becomes: models, artifacts, certificate, compiled pipeline."""
