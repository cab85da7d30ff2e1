"""Fits guards on held-out rows and certifies what they promise.

May import deployment and everything below; nothing that serves imports it. Read `calibrate.py` first.
"""
