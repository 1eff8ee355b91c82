"""What all documents are: read from YAML, written to it, checked as a whole."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Annotated, Literal, Self

import ruamel.yaml
from pydantic import AfterValidator, Field, PrivateAttr

from daf import documents
from daf.references import Section

_METRIC_ALIASES = {"avg_reward": "reward"}

MetricName = Annotated[str, Field(min_length=1), AfterValidator(lambda name: _METRIC_ALIASES.get(name, name))]
"""`reward`, or an agent's or the game's statistic."""

Aggregation = Literal["mean", "sum", "min", "max"]
"""How the values of several seats become one."""


class DocumentConfig(Section):
    """A whole document. Paths in it are relative to `directory`."""

    _directory: Path = PrivateAttr(default_factory=Path.cwd)

    @property
    def directory(self) -> Path:
        """Directory of the file that the document was read from; else the one in which it was made."""
        return self._directory

    @classmethod
    def from_yaml(cls, path: str | Path) -> Self:
        """Reads a YAML file.

        Raises:
            FileNotFoundError: there is no such file.
            daf.documents.DocumentError: it cannot be used; a ValueError that names the lines.
        """
        config = documents.load(path, cls)
        config._directory = Path(path).resolve().parent
        return config

    @classmethod
    def from_json(cls, path: str | Path) -> Self:
        """Reads a JSON file, as `from_yaml` does."""
        return cls.from_yaml(path)

    def to_yaml(self, path: str | Path) -> None:
        """Writes the document to a YAML file, without what has its default. Paths in it are written as they are."""
        Path(path).write_text(self.yaml_text(), encoding="utf-8")

    def yaml_text(self) -> str:
        """The document as YAML, without what has its default."""
        yaml = ruamel.yaml.YAML()
        yaml.default_flow_style = None
        yaml.width = 1000
        text = io.StringIO()
        yaml.dump(self.model_dump(mode="json", by_alias=True, exclude_defaults=True), text)
        return text.getvalue()

    def validate(self) -> None:  # type: ignore[override]  # hides a deprecated class method of pydantic
        """Checks the document as a whole, as after a change inside of one of its lists.

        Raises:
            ValueError: it cannot be used.
        """
        type(self).model_validate(dict(self))
