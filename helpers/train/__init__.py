"""A folder of the user's own becomes a model: python -m helpers.train."""
