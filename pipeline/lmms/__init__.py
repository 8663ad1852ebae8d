"""The lmms-eval plug-in: `lmms_eval eval --model adatp` asks the same models the same way as `jobs.evaluate`.

lmms-eval is no dependency of the project. `manifest` is what its entry point loads; `model` is loaded when the model is
asked for; `tasks` writes task files for data on this machine.
"""
