"""What stages compute on: GPUs, counted and leased, and CPU threads."""
