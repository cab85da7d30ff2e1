"""Fallbacks answer: models, the wrappers that make them resilient, and the queue to a person.

A predictor returns tensors and does not know why it was asked. Nothing here knows the gateway.
"""
