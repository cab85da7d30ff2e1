"""Attacks on a deployment of one's own over HTTP, and what an attacker pays: `gateway redteam`.

| read | for |
|---|---|
| `campaign.py` | what is carried out, in which order, within which limits |
| `permission.py` | which targets are refused |
| `target.py`, `bare.py` | what is attacked: the gateway over HTTP, the bare file beside it |
| `space.py`, `run.py` | rows as an attacker moves them, and one attack on one row: counted, bounded |
| `attacks/` | one file an attack |
| `records.py`, `figures.py` | what one run gave, and what all runs say together |
| `table.py`, `report.py` | the figures for a terminal, as JSON and as a page |

An attacker knows nothing but the replies. May import calibration and everything below it.
"""
