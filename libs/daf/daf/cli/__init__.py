"""The `daf` command."""
