from services.batch.batch import Batch

__all__ = ["Batch"]
