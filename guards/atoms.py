def cut_above(ranked, at):
    import numpy as np

    v = float(ranked[at])
    tol = 1e-7
    later = ranked[np.searchsorted(ranked, v + tol, "right") :]
    step = min(1e-5, (float(later[0]) - v) / 2) if len(later) else 1e-5
    return v + max(step, tol / 2)
