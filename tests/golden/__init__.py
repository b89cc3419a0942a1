"""Values made once, by arithmetic written down independently of the package."""
