"""Settings: their schema, and how flags, environment and YAML are read into it."""
