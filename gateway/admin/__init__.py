"""The administration plane."""
