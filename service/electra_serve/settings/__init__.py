"""Schema of the settings, and their sources: flags, environment and YAML."""
