"""One script per claim about speed or memory; each measures DenseRC and the alternative in the same run.

`python -m benchmarks` runs them all; see README.md here, and docs/SPEED.md for what the alternative does.
"""
