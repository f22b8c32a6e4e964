"""What a shop needs to publish a product, beside the client and on top of it."""

from services.shop.shop import Shop, check_image
from services.shop.text_check import check_text
from services.shop.text_units import cut_text

__all__ = ["Shop", "check_image", "check_text", "cut_text"]
