"""The worker of an evaluation: a supervisor, the mother of its players, and a player."""
