"""Base classes of all models of files."""

from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer


def _no_boolean(value: Any) -> Any:
    """Refuse true and false, which are integers to Python."""
    if isinstance(value, bool):
        raise ValueError(f"expected an integer, got {value}")
    return value


Count = Annotated[int, BeforeValidator(_no_boolean), Field(ge=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Model(BaseModel):
    """Base of all models of files: frozen, and unknown fields are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class CompactModel(Model):
    """A model whose fields in `omitted_defaults` are left out of a dump if they have their defaults.

    A new field thus leaves the digests of files that do not use it unchanged.
    """

    omitted_defaults: ClassVar[frozenset[str]] = frozenset()

    @model_serializer(mode="wrap")
    def _written(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        values: dict[str, Any] = handler(self)
        fields = type(self).model_fields
        defaults = {name: fields[name].get_default(call_default_factory=True) for name in self.omitted_defaults}
        same = {name for name, default in defaults.items() if getattr(self, name) == default}
        return {name: value for name, value in values.items() if name not in same}
