"""What happens to the data: consume, join, settle, write."""
