"""What a shop needs to publish a product, beside the client and on top of it."""

from services.shop.shop import Shop, check_image

__all__ = ["Shop", "check_image"]
