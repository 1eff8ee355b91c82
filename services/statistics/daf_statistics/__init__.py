"""All numbers: metric series, episode results, summaries and comparisons."""
