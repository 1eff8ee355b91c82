"""Policies of other people, each in a confined process."""
