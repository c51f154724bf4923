"""Entry points: parse the command line, build, run, give an exit code."""
