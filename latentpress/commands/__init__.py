"""Commands of the command line that bring much of their own: training, bench, report."""
