"""Search strategies: which parameters are tried."""
