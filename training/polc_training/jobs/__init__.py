"""What each stage of training is asked for, and the job that comes of it."""
