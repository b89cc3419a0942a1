"""The repository that most tests of the hub read."""

REVISION = "0123456789abcdef0123456789abcdef01234567"
BIG = bytes(range(256)) * 4096
FILES = {
    "config.json": b"{}",
    "unet/weights.safetensors": BIG,
    "unet/config.json": b'{"a": 1}',
    "empty.txt": b"",
}
ID = "someone/base"
