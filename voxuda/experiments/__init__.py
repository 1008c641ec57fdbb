"""Tables as lists of runs: sweeps, the ladder, statistics, reports, figures."""
