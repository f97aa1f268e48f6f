"""The real models that must work, by their paths in the folder of real models, without the ending."""

GOOD = [
    *(f"gearbox/{name}" for name in ("autoencoder", "autoencoder_int8quantized", "dnn", "dnn_int8quantized")),
    *(f"ic_resnet/{name}" for name in ("pretrainedResnet", "pretrainedResnet_quant")),
    *(f"kws/{name}" for name in ("kws_ref_model", "kws_ref_model_float32")),
    *(f"magic_wand/{name}" for name in ("magic_wand_float", "magic_wand_quant")),
    *(f"odd/{name}" for name in ("mixed_input_model", "multi_signature_model", "simple_add_dynamic_shape")),
    "ondevice_training/training_model",
]
