"""Access control: keys, persons, in-flight limits, trusted proxies, TLS.

Imports the core and the policy schema. Read `callers.py` first, then `keys.py`;
`persons.py` has those of the administration.
"""
