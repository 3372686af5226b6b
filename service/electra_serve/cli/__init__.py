"""The command line: `electra-serve serve | healthcheck | compile | presets`."""
