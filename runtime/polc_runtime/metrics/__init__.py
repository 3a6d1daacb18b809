"""What predictions and decoded images are measured by."""
