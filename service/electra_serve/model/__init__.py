"""`ElectraBackbone` in Keras 3, on any of its backends. Importing this package imports Keras."""

from electra_serve.model.backbone import Backbone, BackboneOutput, ElectraBackbone

__all__ = ["Backbone", "BackboneOutput", "ElectraBackbone"]
