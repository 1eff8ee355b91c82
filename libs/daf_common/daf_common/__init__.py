"""What the services of DAF share."""
