"""The vendors' own clients, unmodified but for the base URL, against our API."""
