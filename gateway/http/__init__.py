"""The data plane over HTTP: routes, the handler of each, replies, body codings, and the OpenAPI document.

May import `serving` and the packages below it; only `replica` imports this. Read `route_table.py` first, then
`handler.py` and `infer_route.py`.
"""
