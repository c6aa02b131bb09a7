"""Text into typed objects: settings, manifests, JSON Schema."""

from conveyor_config.binds import check_bind, is_loopback, is_wildcard
from conveyor_config.errors import (
    ConfigError,
    FileUnreadable,
    InsecureBindRefused,
    Located,
    ManifestsRefused,
    SettingsRefused,
    YamlRefused,
)
from conveyor_config.load import load_settings, variables
from conveyor_config.manifest import Manifest, Manifests, load_manifests
from conveyor_config.schema import SCHEMA_KINDS, json_schema
from conveyor_config.settings import RouterSettings, SidecarSettings
from conveyor_config.yaml import YamlDocument, read_yaml

__all__ = [
    "SCHEMA_KINDS",
    "ConfigError",
    "FileUnreadable",
    "InsecureBindRefused",
    "Located",
    "Manifest",
    "Manifests",
    "ManifestsRefused",
    "RouterSettings",
    "SettingsRefused",
    "SidecarSettings",
    "YamlDocument",
    "YamlRefused",
    "check_bind",
    "is_loopback",
    "is_wildcard",
    "json_schema",
    "load_manifests",
    "load_settings",
    "read_yaml",
    "variables",
]
