"""The client of DAF: the daf_* functions and the daf command."""
