"""Makes a leaderboard from the results of the variants: collect, tabulate, plot, write."""
