"""Whether a deployed inference service does its work, asked from outside as a caller would.

`service` asks, `checks` judges what was answered, `budget` counts failures over a while, and `run`
wires them for ``cryptoml smoke``. Nothing here reads settings: the machine that asks has none.
"""
