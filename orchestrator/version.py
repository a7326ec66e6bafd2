"""The version of this package: what a build, `--version` and the manifests say, installed or not."""

__version__ = "0.1.0"
