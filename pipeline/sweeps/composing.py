"""Composes the jobs of a sweep: by Hydra, once for all that differ in nothing but values."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import TYPE_CHECKING

from hydra._internal.config_loader_impl import get_overrides_dirname
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

if TYPE_CHECKING:
    from hydra.core.config_loader import ConfigLoader


class Composer:
    """Gives what `ConfigLoader.load_sweep_config` gives, in a fraction of the time.

    Hydra reads all files and merges them for every job. What is chosen from groups decides which; values such as
    ``function_params.b=3`` are set in the outcome, one after the other. So jobs with the same choices share what is
    merged, and their values are set in copies of it. Whatever else there is, Hydra does, for each job.

    Args:
        loader: Hydra's.
        master: What it composed for the whole sweep.
    """

    def __init__(self, loader: ConfigLoader, master: DictConfig) -> None:
        self._loader, self._master = loader, master
        self._parser = OverridesParser.create(config_loader=loader)
        self._known: dict[str, Override] = {}
        self._groups: dict[str, bool] = {}
        self._bases: dict[tuple[str, ...], DictConfig] = {}

    def compose(self, words: Sequence[str]) -> DictConfig:
        """Compose a job.

        Args:
            words: What is set for it.

        Returns:
            Its configuration, with Hydra's own part.
        """
        overrides = [self._parsed(word) for word in words]
        values = [override for override in overrides if self._sets_a_value(override)]
        if not values or self._master.hydra.searchpath:  # groups that the loader does not list
            return self._by_hydra(words)
        others = tuple(
            word for word, set_ in zip(words, overrides, strict=True) if set_ not in values
        )
        if others not in self._bases:
            self._bases[others] = self._by_hydra(others)
        config = deepcopy(self._bases[others])
        try:
            for override in values:
                OmegaConf.update(config, override.key_or_group, override.value(), merge=True)
        except OmegaConfBaseException:
            return self._by_hydra(words)  # which says what is wrong with it
        return _told(
            config, [override for override in overrides if not override.is_hydra_override()]
        )

    def _by_hydra(self, words: Sequence[str]) -> DictConfig:
        return self._loader.load_sweep_config(self._master, list(words))

    def _parsed(self, word: str) -> Override:
        if word not in self._known:
            self._known[word] = self._parser.parse_override(word)
        return self._known[word]

    def _sets_a_value(self, override: Override) -> bool:
        return (
            override.type == OverrideType.CHANGE
            and override.package is None
            and not override.is_sweep_override()
            and not override.is_hydra_override()
            and not self._is_group(override.key_or_group)
        )

    def _is_group(self, key: str) -> bool:
        if key not in self._groups:
            chosen = key in self._master.hydra.runtime.choices
            self._groups[key] = chosen or bool(self._loader.get_group_options(key))
        return self._groups[key]


def _told(config: DictConfig, overrides: Sequence[Override]) -> DictConfig:
    """Note what was set, as Hydra does."""
    with open_dict(config.hydra):
        config.hydra.overrides.task = [override.input_line for override in overrides]
        named = config.hydra.job.config.override_dirname
        config.hydra.job.override_dirname = get_overrides_dirname(
            list(overrides), list(named.exclude_keys), named.item_sep, named.kv_sep
        )
    return config
