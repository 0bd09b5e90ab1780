"""What the data is: events in, records out. Pure; no clock, no IO."""
