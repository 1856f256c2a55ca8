"""Training from a data set as it lies: clips, transforms, models, the loop, testing and fusion.

Needs the extra: `pip install 'flowprep[train]'`. `config`, `clips` and `transforms` do without it.
"""
