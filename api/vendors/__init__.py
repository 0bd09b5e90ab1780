"""The vendors' views of records and reports: what a request of theirs asks, and how they tell an answer. Pure."""
