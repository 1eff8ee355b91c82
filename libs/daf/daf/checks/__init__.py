"""Checks before an experiment, a module for each thing that is looked at; `daf.environment_checks` has them all."""
