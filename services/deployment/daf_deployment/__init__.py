"""Policy packages and users' artifacts."""
