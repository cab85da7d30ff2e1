def record_attempt(var, hashes, what, now_s):
    return 1
