"""Arc2Face (arXiv 2403.11641): Stable Diffusion 1.5 conditioned on ArcFace embeddings.

It writes the prompt "photo of a id person", replaces the token embedding of ``id`` by the zero-padded ArcFace
vector, and runs the whole sequence through the CLIP text encoder (section 3.2).
"""

from piu_lora.model.family import BaseFamily, Download, Prompt, Source, register

__all__ = ["ARC2FACE", "FAMILY", "SD15"]

# Repository and pinned revision of the published weights, and of what Arc2Face takes from its own base.
ARC2FACE = ("FoivosPar/Arc2Face", "321709b2e9697ea2a5bd06c8a51b340592333e1e")
SD15 = ("stable-diffusion-v1-5/stable-diffusion-v1-5", "451f4fe16113bff5a5d2269ed5ad43b0592e9a14")

_DOWNLOADS = (
    Download(
        "Arc2Face",
        *ARC2FACE,
        {
            "arc2face/config.json": 2_000,
            "arc2face/diffusion_pytorch_model.safetensors": 3_440_000_000,
            "encoder/config.json": 1_000,
            "encoder/pytorch_model.bin": 490_000_000,
        },
    ),
    Download(
        "Stable Diffusion 1.5",
        *SD15,
        {
            "scheduler/scheduler_config.json": 1_000,
            "tokenizer/vocab.json": 1_060_000,
            "tokenizer/merges.txt": 525_000,
            "tokenizer/special_tokens_map.json": 1_000,
            "tokenizer/tokenizer_config.json": 1_000,
            "vae/config.json": 1_000,
            "vae/diffusion_pytorch_model.safetensors": 335_000_000,
        },
    ),
)

FAMILY = register(
    BaseFamily(
        name="arc2face",
        label="Arc2Face",
        embedding_width=512,
        recognizer="arcface.onnx",
        prompt=Prompt("photo of a id person", "id"),
        shape={
            "unet.in_channels": 4,
            "unet.cross_attention_dim": 768,
            "unet.block_out_channels": [320, 640, 1280, 1280],
            "text_encoder.hidden_size": 768,
            "text_encoder.num_hidden_layers": 12,
        },
        # One condition of CLIP ViT-L/14 costs 13 GFLOP: what keeps a person under a minute on two cores
        # (benchmarks/closed_shape.py). Gates are as they were measured on real faces in condition space
        # (benchmarks/unseen.py): photographs that were not given lie far from those that were.
        presets={
            "": {
                "closed": {"retained": 1024, "near": 128, "mixtures": 8},
                "gate": {"checked": 1024, "written": 1024, "eta": 1.0, "width": 0.07},
            }
        },
        # Samplers and batches as they are used on a base of this size; not measured.
        audit={"steps": 25, "batch": 8, "relearn": {"lr": 1e-4}, "reidentify": {"people": 1024}},
        source=Source(*ARC2FACE, {"unet": "arc2face", "text_encoder": "encoder"}, SD15, _DOWNLOADS),
        tags=("arc2face",),
    )
)
