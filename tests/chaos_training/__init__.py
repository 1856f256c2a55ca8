"""Trainings that are killed, told to end, stopped, and out of disk: `scripts/chaos_training`."""
