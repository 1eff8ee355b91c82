"""Training jobs in the experiment trackers that a team has: TensorBoard, MLflow, Weights & Biases.

The metric series come from the statistics service, with agent steps as the x axis. Exporting again sends only what is
missing. API keys are the trackers' own matter: their clients read them from the environment.
"""

from daf.tracking.destinations import Tracking, TrackingFailed
from daf.tracking.export import daf_export_training_job, exported_live

__all__ = ["Tracking", "TrackingFailed", "daf_export_training_job", "exported_live"]
