"""Training from a data set as it lies: clips, transforms, models, the loop, testing and fusion.

Needs the extra: `pip install -e '.[train]'`. `config`, `clips` and `transforms` do without it.
"""
