"""A policy that says something whenever it is made, as people's own do while they look for a mistake."""

from grid_policy import GridPolicy


class TalkativePolicy(GridPolicy):
    short_names = None

    def __init__(self, *arguments, **options) -> None:
        super().__init__(*arguments, **options)
        print("here I am", flush=True)
