"""Episodes: played exactly, fast, and together."""
