"""From the results of the variants to a leaderboard: collect, tabulate, plot, write out."""
