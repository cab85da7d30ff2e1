"""Metrics, traces and the audit log, made from finished requests."""
