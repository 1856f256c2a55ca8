"""The networks, one per file; `flowprep.learn.networks` lists them."""
