"""Fits guards on held-out rows and certifies what they promise."""
