"""The administration plane: metrics, status, policy, circuit breakers, decisions and the review console.

May import `gateway.serving`, all below it, and `fallbacks`. Read `app.py` first; `authentication.py` says who
sends a request, `console.py` is the review console, `preview.py` shows a case's inputs, `pages/` has the HTML
pages and what they show.
"""
