"""Job state: the transition table, the claim rule and the compare-and-set store."""
