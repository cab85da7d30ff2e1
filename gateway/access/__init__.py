"""Who calls, and what each caller may have."""
