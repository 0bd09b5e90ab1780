"""How it is read: queries, HTTP."""
