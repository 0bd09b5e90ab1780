"""The pages an operator looks at: rendered here from what the API tells, nothing built, nothing loaded from afar."""
