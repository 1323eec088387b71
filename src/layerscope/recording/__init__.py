"""The trajectories of other people's trainings: recorded while they run, in the layout of a run."""
