from tests.fields.conftest import stand_in

__all__ = ["stand_in"]
