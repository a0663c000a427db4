"""Networks as ONNX, which onnxruntime runs without torch: opening them from boxes, never making them (`multimodal.export.to_onnx`)."""

from multimodal.onnx.network import FOLDER, KIND, OnnxNetwork, describe_networks, network_boxes, network_in

__all__ = ["FOLDER", "KIND", "OnnxNetwork", "describe_networks", "network_boxes", "network_in"]
