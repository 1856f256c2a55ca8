"""The networks, one a file; `flowprep.learn.networks` says what there is."""
