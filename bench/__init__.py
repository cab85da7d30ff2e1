"""What the gateway really does, measured: its speed (`python -m bench URL`), and what it promises.

Floor 4: everything may be imported from here, and nothing imports this.
"""
