"""What `gateway.yaml` may say, and where in it a problem is.

`schema.py` has the models of its blocks, `kinds/` one file for each kind of guard and check, `read.py` reads
the file once, `locate.py` finds the line of a problem. May import protocol, core, guards, fallbacks' types.
"""
