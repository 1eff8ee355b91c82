"""What the statistics service tells Prometheus, beside what every service does."""

from __future__ import annotations

from prometheus_client import Counter

EPISODES = Counter("daf_statistics_episodes_total", "Episodes that were recorded; those sent again are not counted.")
POINTS = Counter("daf_statistics_points_total", "Values of metrics that were recorded; likewise.")
