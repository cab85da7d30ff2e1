"""The administration plane: metrics, status, policy, circuit breakers, decisions and the review console.

May import `gateway.serving`, all below it, and `fallbacks`. Read `app.py` first; `console.py` is the review
console, `preview.py` shows a case's inputs, `pages/` has the login, the HTML pages and what they show.
"""
