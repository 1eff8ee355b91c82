"""The worker of a training job: ranks that train with `cogames.train`."""
