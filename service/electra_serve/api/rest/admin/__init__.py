"""The admin API: loads, reloads and unloads models at run time."""
