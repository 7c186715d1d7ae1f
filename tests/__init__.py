"""All tests; they mirror the packages."""
