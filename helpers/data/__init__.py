"""Data in: where data sets lie, how folders and zips become labelled samples, and honest splits."""
