"""What lmms-eval's entry point loads, at every import of its models: so it imports nothing else."""

from lmms_eval.models.registry_v2 import ModelManifest

MANIFEST = ModelManifest(model_id="adatp", simple_class_path="pipeline.lmms.model.AdaTP")
