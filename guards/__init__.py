"""Guards measure: one idea a file, one number a row, and **larger = more suspicious** everywhere.

Nothing here knows a threshold, a mode or a consequence; nothing here knows the gateway.
"""
