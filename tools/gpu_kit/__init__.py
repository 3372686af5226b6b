"""Kit for a bare GPU machine: contract, service, speed and startup, measured by one script without a network.

wheels      pinned wheels that the machine lacks
__main__    builds the folder
run         runs it there, on plain Python
runner      stages in child processes with time limits, and their results
"""
