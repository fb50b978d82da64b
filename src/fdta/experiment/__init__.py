"""params.yaml -> Experiment -> jobs."""
