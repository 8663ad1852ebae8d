"""Where work runs: stages, pools of workers, and the one file that knows Ray."""
