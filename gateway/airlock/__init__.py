"""The airlock: models are checked and tried in a confined process before the gateway opens them.

| file | does |
|---|---|
| `admit` | the question that the gateway asks, with what has passed before (`passed`) |
| `process` | starts the confined process, waits for it within bounds, reads its report |
| `child`, `confine` | that process, and its limits of memory, computing, time and files |
| `trial` | opens a model there, and runs it at its smallest, typical and largest shape |
| `static` | what is refused unopened: `names`, `operators`, `tensors`, `growth` |
| `bounds`, `graph_values` | what `growth` knows of the numbers in a graph |

It knows no policy: `deployment/models.py` says what to try of which file. It is a package of the gateway and
not of `fallbacks`, since the confined process also reads the rows that calibration kept, by `guards`.
Read `admit.py` first.
"""
